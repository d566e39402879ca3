"""Tables, figures and sentences from made-up records: every form a sentence can take, and the figures it prints."""

import json
import re
import types
import xml.etree.ElementTree as ElementTree

import made_up
import numpy as np
import pandas as pd
import pytest
from made_up import IMAGES, rewrite
from threadpoolctl import threadpool_limits

from report_lib import figures, findings, measures, pictures, plan, prose, search, stats, tables
from report_lib.recipe import DEFECTS, InputError
from report_lib.results import results

FULL = {"recipes": "published,corrected,tuned", "seeds": "0,1,2", "budgets": "10,50", "defects": "linear_probe"}


def better(approach, what):
    return 0.8 if approach == "full_finetune" else 0.6


def test_every_part_says_something_true_of_every_class_name(study):
    evidence = study(better, **FULL)
    main, images = evidence.main, np.zeros((IMAGES, 8, 8, 3), np.uint8)
    parts = [
        tables.published(evidence, "made up"), tables.defects(evidence), tables.budgets(evidence),
        tables.provenance(evidence), tables.cost(evidence),
        figures.accuracy_against_time(evidence), figures.budgets(evidence), figures.reliability(main),
        figures.classes(main), pictures.mistakes(main, images), pictures.disagreements(main, images),
        pictures.filters(main["full_finetune"][0]), prose.abstract(evidence, ""), prose.published(evidence),
        findings.defects(evidence), findings.recipes(evidence), findings.budgets(evidence), findings.calibration(main),
        findings.classes(main), findings.overlap(main), findings.filters(main["full_finetune"][0]),
        findings.limits(main), prose.difference(main),
    ]  # fmt: skip
    for part in parts:
        looks = part.looks()
        assert "nan" not in looks["text/plain"].lower() and looks["text/plain"].strip()
        if hasattr(part, "svg"):
            ElementTree.fromstring(part.svg)
            assert part.alt and part.caption.endswith(".")
            assert "<script>" not in part.svg


def test_the_better_one_is_named_and_how_often_it_wins(study):
    text = prose.difference(study(better, seeds="0,1,2").main).markdown
    assert text.startswith("Full fine-tuning is more accurate than the linear probe")
    assert "the higher test accuracy in 9 of the 9 pairs" in text and "A bootstrap that draws seeds" in text
    worse = study(lambda approach, what: 1.4 - better(approach, what), seeds="0,1,2").main
    assert prose.difference(worse).markdown.startswith("The linear probe is more accurate")
    same = study(lambda approach, what: 0.7, seeds="0,1,2").main
    text = prose.difference(same).markdown
    assert text.startswith("No difference in test accuracy can be claimed: both get the same test images right.")


def test_the_crossing_of_few_labels_is_named(study):
    def crossing(approach, what):
        few = what == "budget:10"
        return 0.7 if (approach == "linear_probe") == few else 0.5

    evidence = study(crossing, seeds="0,1", budgets="10,50")
    text = findings.budgets(evidence).markdown
    assert "with 10 labels a class the linear probe is ahead" in text
    assert "with 50 labels a class full fine-tuning is ahead" in text and "cross between 10 and 50" in text
    labels = [row[0] for row in tables.budgets(evidence).rows]
    assert labels == ["10", "50", "100"] and {row[2] for row in tables.budgets(evidence).rows} == {"2"}
    assert "no crossing is shown" in findings.budgets(study(better, seeds="0,1", budgets="10,50")).markdown
    assert "neither is clearly ahead" in findings.budgets(study(lambda *_: 0.6, seeds="0,1", budgets="10")).markdown


def test_what_was_not_run_is_not_shown(study):
    evidence = study(better)
    assert figures.budgets(evidence) is None and findings.budgets(evidence).markdown == ""
    assert "parameter `defects`" in tables.defects(evidence).markdown
    assert "parameter `recipes`" in findings.recipes(evidence).markdown


def test_defects_that_flatter_are_told_from_those_that_do_nothing(study):
    def flattered(approach, what):
        return 0.75 if what == "defect:select_on_test" else 0.6

    evidence = study(flattered, seeds="0,1", defects="linear_probe")
    text = findings.defects(evidence).markdown
    assert "These raise the reported accuracy: “the test images select the epoch” (linear probe)" in text
    assert "lower it" not in text and "0.2 would be expected to exclude zero by chance" in text
    assert ("0", "the same images right") in {row[3:5] for row in tables.defects(evidence).rows}
    effects = {one["defect"]: one for one in measures.defect_effects(evidence)}
    assert effects["select_on_test"]["effect"] > 0.1 and effects["select_on_test"]["effect_is_clear"]
    assert not effects["frozen_dropout"]["effect_is_clear"]
    assert (
        "No single defect can be said"
        in findings.defects(study(lambda *_: 0.6, seeds="0,1", defects="linear_probe")).markdown
    )


def test_holding_nothing_out_is_compared_with_selecting_on_the_test_images(study):
    """The one brings the other along, so that only what it adds is its own effect."""
    shares = {"defect:select_on_test": 0.7, "defect:train_on_all": 0.8, "published": 0.9}
    evidence = study(lambda approach, what: shares.get(what, 0.6), recipes="published,corrected", seeds="0,1,2",
                     extra_seeds="0,2", defects="full_finetune")  # fmt: skip
    effects = {one["defect"]: one for one in measures.defect_effects(evidence)}
    assert [effects[name]["against"] for name in ("select_on_test", "train_on_all", "all")] == [
        "corrected", "select_on_test", "corrected"
    ]  # fmt: skip
    assert [round(effects[name]["effect"], 1) for name in ("select_on_test", "train_on_all", "all")] == [0.1, 0.1, 0.3]
    assert [effects[name]["n"] for name in ("select_on_test", "train_on_all", "all")] == [2, 2, 3]
    assert "n = 2 or 3" in tables.defects(evidence).caption


def test_where_fine_tuning_gains_is_said_with_its_sign(study):
    def said(probe, tuned):
        return findings.classes(study(lambda a, what: probe if a == "linear_probe" else tuned).main).markdown

    assert "gains most on" in said(0.5, 0.9)
    assert "gains on no class; it loses least on" in said(0.9, 0.5)
    assert "changes every class by 0 points" in said(0.7, 0.7) and "extremes" not in said(0.7, 0.7)


def test_clear_tests_beside_an_unclear_interval_are_explained(tmp_path):
    """Each seed's networks differ on these very images, but not in one direction: other seeds may do anything."""
    for approach, shares in (("linear_probe", (0.6, 0.6)), ("full_finetune", (0.75, 0.45))):
        for recipe, share in zip(plan.plan(approach, seeds="0,1")["corrected"], shares, strict=True):
            made_up.record(tmp_path, recipe, share)
    text = prose.difference(plan.read(tmp_path, seeds="0,1").main).markdown
    assert text.startswith("No difference in test accuracy can be claimed") and "p < 0.001" in text
    assert "2 seeds are too few to say so" in text


def test_a_pause_of_the_machine_is_no_training_and_is_owned_up_to():
    def run(*epochs):
        info = {"train_seconds": 5 + sum(epochs), "data": {"train": 1000}, "recipe": {"epochs": len(epochs)}}
        return types.SimpleNamespace(info=info, epochs=pd.DataFrame({"train_seconds": epochs}))

    quiet, paused, slow = run(10, 11, 9, 10), run(10, 700, 9, 11), run(20, 20, 21, 20)
    assert measures.seconds_of(quiet) == 45 and measures.seconds_of(paused) == 47
    assert measures.images_per_second([quiet]) == pytest.approx(4000 / 45)
    assert not measures.disturbed([quiet]) and measures.disturbed([paused]) and measures.disturbed([quiet, slow])
    assert "other work" in prose.rough([quiet], [paused]) and prose.rough([quiet]) == ""


def test_a_learning_rate_that_was_given_is_owned_up_to(study):
    named = {"recipes": "corrected,tuned", "seeds": "0"}
    assert "was given" not in prose.abstract(study(better, **named), "").markdown
    evidence = study(better, **named, learning_rate=0.0005)
    assert "A learning rate of 0.0005 was given, in place of what *corrected* and *tuned* would take" in (
        prose.abstract(evidence, "").markdown
    )
    found = {name: search.read(search.FOLDER / f"{name}.csv") for name in evidence.runs}
    made = {name: search.conditions(name) for name in evidence.runs}
    text = findings.search(found, {name: search.winner(name) for name in evidence.runs}, made, evidence.best).markdown
    assert "the learning rate of the linear probe and of full fine-tuning was given instead" in text
    assert "at 64 pixels on 500 labelled images of each class" in text and "of 1,000 validation images" in text


def test_temperatures_are_fitted_on_held_out_images_or_not_at_all(study):
    evidence = study(better, recipes="published,corrected", seeds="0")
    assert "no temperature can be fitted" in findings.calibration(evidence.of("published")).markdown
    assert figures.reliability(evidence.of("published")) is None
    result = results("demo", evidence, "")
    assert result["approaches"]["linear_probe"]["published"]["calibration"] is None
    calibration = result["approaches"]["linear_probe"]["corrected"]["calibration"]
    assert calibration["ece_scaled"] < calibration["ece"] and calibration["test_loss_scaled"] < calibration["test_loss"]


def test_an_accuracy_that_the_test_images_selected_is_called_so(study):
    evidence = study(better, recipes="published,corrected", seeds="0")
    for approach in ("linear_probe", "full_finetune"):
        assert "no estimate for new images" in prose.test(evidence.runs[approach]["published"]).markdown
        assert "read once" in prose.test(evidence.runs[approach]["corrected"]).markdown


def test_one_seed_and_few_discordant_images_claim_nothing():
    a = np.zeros((1, 360), bool)
    b = a.copy()
    b[0, :4] = True
    found = stats.paired_difference(a, b)
    assert found.low > 0 and found.p == pytest.approx(0.125) and not found.clear


def test_runs_on_other_data_are_not_compared(study, tmp_path):
    evidence = study(better, seeds="0")
    run = evidence.runs["full_finetune"]["corrected"][0]
    rewrite(run, "f" * 64, "e" * 64)
    with pytest.raises(InputError, match="data has changed between the runs of this study"):
        plan.read(run.path.parent, seeds="0")


def test_times_on_different_devices_are_not_weighed(study):
    evidence = study(better, seeds="0")
    run = evidence.runs["full_finetune"]["corrected"][0]
    rewrite(run, '"device": "cpu"', '"device": "a GPU"')
    again = plan.read(run.path.parent, seeds="0")
    assert "their times cannot be weighed" in prose.verdict(again).markdown


def test_published_reports_the_last_epochs_loss_as_its_listing_does(study):
    evidence = study(better, recipes="published,corrected", seeds="0")
    run = evidence.runs["linear_probe"]["published"][0]
    assert measures.reported_loss(run) == 0.5
    other = evidence.runs["linear_probe"]["corrected"][0]
    assert measures.reported_loss(other) == other.info["test_loss"]


@pytest.mark.parametrize(
    ("train", "held_out", "said"),
    [
        ((4, 4, 4), (1, 1, 1), "each trains with 4 images."),
        ((4, 5, 4), (1, 1, 1), "each trains with 4 to 5 images."),
        ((2, 30, 8), (0, 7, 2), "1 class has too few images to hold one out (<b>cat</b>), so"),
        ((2, 30, 8), (0, 7, 2), "dog trains with 30 images, <b>cat</b> with 2. A network that always named dog"),
        ((2, 2, 30), (0, 0, 7), "2 classes have too few images to hold one out (<b>cat</b>, dog), so"),
        ((5, 5, 5), (0, 0, 0), "each trains with 5 images."),
    ],
)
def test_imbalance_of_the_training_images_is_said(train, held_out, said):
    labels = [np.repeat(np.arange(3), counts) for counts in (train, held_out)]
    markdown = prose.balance(*labels, ["<b>cat</b>", "dog", "ant"]).markdown
    assert said in re.sub(r"\\(.)", r"\1", markdown)


def test_two_hundred_classes_fit(study):
    classes = [f"a rather long class name, number {n}" for n in range(200)]
    evidence = study(better, classes=classes, seeds="0")
    figure = figures.classes(evidence.main)
    assert "The 20 of 200 classes that differ most" in figure.caption
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', figure.svg).group(1)) for side in ("width", "height"))
    assert width <= 6.4 * 72 and height < 9 * 72
    assert "confusion" in figures.confusion(evidence.main["linear_probe"]).label


def test_no_mistake_and_no_disagreement(study):
    evidence = study(lambda *_: 1.0, seeds="0")
    images = np.zeros((IMAGES, 8, 8, 3), np.uint8)
    assert pictures.mistakes(evidence.main, images).alt == "No such picture."
    assert "0 only the linear probe" in pictures.disagreements(evidence.main, images).caption


def test_cifar10_has_known_limits_and_others_have_none_known(study):
    assert "Nothing is known here" in findings.limits(study(better).main).markdown


def test_results_hold_every_recipe_defect_and_budget(study):
    evidence = study(better, **FULL)
    result = results("demo", evidence, "")
    for approach in ("linear_probe", "full_finetune"):
        assert set(result["approaches"][approach]) == {"published", "corrected", "tuned"}
        for one in result["approaches"][approach].values():
            right = measures.right_of(evidence.runs[approach][one["recipe"]["recipe"]])
            assert one["test_accuracy"]["mean"] == pytest.approx(right.mean()) and one["test_accuracy"]["n"] == 3
    assert [one["labels_per_class"] for one in result["label_budget"]] == [10, 50, 100]
    assert {one["defect"] for one in result["defects"]} == {
        "select_on_test", "unstratified", "frozen_dropout", "batch_averages", "all"
    }  # fmt: skip


def test_no_result_depends_on_the_number_of_threads(study):
    """A sum that threads share is rounded as they share it, and two machines would give two results.json."""
    evidence, found = study(better, **FULL), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(results("demo", evidence, ""))
    assert found[0] == found[1]


def test_results_hold_what_goes_wrong(study):
    evidence = study(better, **FULL)
    result = results("demo", evidence, "")
    json.dumps(result, allow_nan=False)
    for approach, recipes in result["approaches"].items():
        for recipe, one in recipes.items():
            runs = evidence.runs[approach][recipe]
            everything = sum(len(run.predictions()["test_labels"]) for run in runs)
            for bins in one["reliability"].values():
                assert sum(some["count"] for some in bins) == everything
            assert ("temperature_scaled" in one["reliability"]) == (one["calibration"] is not None)
            for run, listed in zip(runs, one["surest_mistakes"], strict=True):
                arrays = run.predictions()
                for image in listed["images"]:
                    at = image["index"]
                    assert run.classes[arrays["test_labels"][at]] == image["true"] != image["predicted"]
                    assert run.classes[arrays["test_logits"][at].argmax()] == image["predicted"]
                sure = [image["confidence"] for image in listed["images"]]
                assert sure and sure == sorted(sure, reverse=True)
            assert (one["filter_change"] is None) == (approach == "linear_probe")
    right = [measures.right_of(evidence.main[approach]) for approach in result["approaches"]]
    for counts, probe, tuned in zip(result["agreement"], *right, strict=True):
        assert counts["both"] + counts["only_linear_probe"] == probe.sum()
        assert counts["both"] + counts["only_full_finetune"] == tuned.sum()
        assert sum(counts.values()) - counts["seed"] == len(probe)
    for found in result["search"].values():
        best = max(found["trials"], key=lambda trial: trial["validation_accuracy"])
        assert found["winner"].items() <= best.items() and len(found["trials"]) > len(found["winner"])


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"recipes": ""}, "corrected must be among them"),
        ({"recipes": "published,tuned"}, "corrected must be among them"),
        ({"recipes": "tuned,tuned"}, "allowed are distinct names"),
        ({"recipes": 3}, "recipes is 3"),
        ({"budgets": "10,ten"}, "budgets is '10,ten'"),
        ({"budgets": "10,10"}, "each number may stand there once"),
        ({"budgets": True}, "budgets is True"),
        ({"defects": "probe"}, "defects is 'probe'; allowed are distinct names out of linear_probe"),
        ({"defects": "linear_probe@3"}, "defects is 'linear_probe@3'; after @ stand some of the seeds, '0'"),
        ({"defects": "linear_probe@0,linear_probe"}, "allowed are distinct names"),
        ({"mirror": "no"}, "mirror is 'no'; allowed are true and false"),
        ({"seeds": "0,1", "extra_seeds": "1,2"}, "extra_seeds is '1,2'; allowed are some of the seeds, '0,1'"),
        ({"extra_seeds": "one"}, "extra_seeds is 'one'"),
        ({"seeds": "one"}, "seeds is 'one'"),
        ({"defects": "linear_probe@x"}, "defects is 'linear_probe@x'; after @ stand some of the seeds"),
    ],
)
def test_plans_that_make_no_sense_are_refused(parameters, says):
    with pytest.raises(InputError, match=says):
        plan.plan("linear_probe", **parameters)


def test_plans_read_lists_numbers_and_none():
    assert plan.parse_budgets([50, 10]) == plan.parse_budgets("50, 10") == [10, 50]
    assert plan.parse_budgets("none") == plan.parse_budgets("") == [] and plan.parse_budgets(25) == [25]
    planned = plan.plan("full_finetune", ["tuned", "corrected"], "0,1", "none", ["full_finetune"], False, epochs=3)
    defects = {f"defect:{name}" for name in ("select_on_test", "train_on_all", "normalisation", "dropout_ends")}
    assert set(planned) == {"tuned", "corrected"} | defects
    assert all(not one.flip and one.epochs == 3 for some in planned.values() for one in some)
    assert plan.parse_defects("linear_probe, full_finetune@0+2", "0,1,2") == {
        "linear_probe": [], "full_finetune": ["0", "2"]
    }  # fmt: skip
    one = plan.plan("full_finetune", "corrected", "0,1,2", "10", "full_finetune@2")
    assert [len(some) for some in one.values()] == [3, 1, 1, 1, 1, 3] and one["defect:normalisation"][0].seed == 2
    fewer = plan.plan("linear_probe", "corrected,tuned", "0,1,2", "10", "linear_probe", extra_seeds=[0, 2])
    assert {what: [one.seed for one in some] for what, some in fewer.items()} == {
        what: [0, 2] if ":" in what else [0, 1, 2] for what in fewer
    }


def test_the_last_batch_of_an_epoch_is_a_step_too(study):
    run = study(0.7, seeds="0", epochs=5, batch_size=32, per_class=50).main["linear_probe"][0]
    assert run.info["data"]["train"] == 200
    assert prose.settings(run).markdown.endswith("which makes 35 steps.")


def test_the_caveat_of_one_seed_and_the_methods_are_those_of_the_budgets(study):
    evidence = study(better, seeds="0,1,2", budgets="10,50", extra_seeds="0")
    assert "With one seed, these intervals cover the draw of test images" in findings.budgets(evidence).markdown
    assert "paired bootstrap over test images, 10,000 resamples or, seeds and test" in tables.budgets(evidence).caption


def test_the_main_figure_names_no_recipe_that_selects_on_test_images(study):
    def flattered(approach, what):
        return 0.9 if what == "published" else better(approach, what)

    caption = figures.accuracy_against_time(study(flattered, **FULL)).caption
    assert "highest mean accuracy is that of full fine-tuning by the recipe" in caption and "published" not in caption
    assert "which trains 10.0 times as long as the linear probe by the same recipe." in caption
    caption = figures.accuracy_against_time(study(lambda *at: 1.4 - better(*at), **FULL)).caption
    assert "that of the linear probe" in caption
    assert "which trains 10.0 times as fast as full fine-tuning by the same recipe." in caption


def test_pictures_of_other_images_than_the_runs_are_refused(study):
    main = study(better, seeds="0").main
    with pytest.raises(InputError, match="data is 'digits', whose images have changed since linear_probe-corrected"):
        pictures.test_images(main, "digits", 64)


def test_runs_made_with_several_versions_are_said_to_be(study):
    evidence = study(better, seeds="0,1")
    run = evidence.runs["full_finetune"]["corrected"][1]
    rewrite(run, '"torch": "2"', '"torch": "3"')
    rows = dict(tables.environment(plan.read(run.path.parent, seeds="0,1").main).rows)
    assert rows["torch"] == "2, 3" and rows["Python"] == "3"


def test_no_folder_of_a_machine_is_published(study):
    evidence = study(better, seeds="0")
    run = evidence.runs["linear_probe"]["corrected"][0]
    command = "python -m report_lib run --data ../some/where/a b.tar --weights=/x/y.pth --runs /srv/runs/ --seed 0"
    rewrite(run, '"command": "made up"', json.dumps({"command": command.replace("a b", "'a b'")})[1:-1])
    again = plan.read(run.path.parent, seeds="0")
    published = "python -m report_lib run --data 'a b.tar' --weights=y.pth --runs runs/ --seed 0"
    assert dict(tables.environment(again.main).rows)["command of the first"] == published
    assert results("demo", again, "")["provenance"]["command"] == published


def test_every_defect_has_a_name_in_the_report():
    assert set(measures.EFFECTS) == {*DEFECTS, "all"}


def test_results_hold_the_intervals_that_sentences_give(study):
    evidence = study(better, **FULL)
    result = results("demo", evidence, "")
    one = result["approaches"]["linear_probe"]["corrected"]
    gap = one["test_minus_validation"]
    assert gap["mean"] == pytest.approx(np.mean([r["test_accuracy"] - r["validation_accuracy"] for r in one["runs"]]))
    assert gap["ci95"][0] < gap["mean"] < gap["ci95"][1] and "Newcombe" in gap["ci95_method"]
    assert result["approaches"]["linear_probe"]["published"]["test_minus_validation"] is None
    for run in one["runs"]:
        assert run["test_accuracy_ci95"] == stats.wilson(round(run["test_accuracy"] * IMAGES), IMAGES)
    assert result["published"]["accuracy_difference"]["mean"] == pytest.approx(0.009)
    assert f"{100 * result['published']['accuracy_difference']['mean']:.2f} perc" in prose.published(evidence).markdown


def test_defects_and_budgets_have_one_row_of_provenance_each(study):
    evidence = study(better, seeds="0,1", budgets="10,50", defects="full_finetune", extra_seeds="1")
    rows = [row[:4] for row in tables.provenance(evidence).rows]
    assert rows == [
        ("linear probe", "corrected", "2", "0, 1"),
        ("linear probe", "budgets 10, 50", "2", "1"),
        ("full fine-tuning", "corrected", "2", "0, 1"),
        ("full fine-tuning", "each defect alone", "4", "1"),
        ("full fine-tuning", "budgets 10, 50", "2", "1"),
    ]
