"""Tables, figures and sentences from made-up records: every form a sentence can take, and the figures it prints."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_up import IMAGES, rewrite

from report_lib import figures, findings, measures, pictures, plan, prose, stats, tables
from report_lib.recipe import InputError
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
    assert "Of all 9 pairs" in text and "in 100\N{NO-BREAK SPACE}%" in text
    worse = study(lambda approach, what: 1.4 - better(approach, what), seeds="0,1,2").main
    assert prose.difference(worse).markdown.startswith("The linear probe is more accurate")
    same = study(lambda approach, what: 0.7, seeds="0,1,2").main
    assert "No difference in test accuracy can be claimed" in prose.difference(same).markdown


def test_the_crossing_of_few_labels_is_named(study):
    def crossing(approach, what):
        few = what == "budget:10"
        return 0.7 if (approach == "linear_probe") == few else 0.5

    evidence = study(crossing, seeds="0,1", budgets="10,50")
    text = findings.budgets(evidence).markdown
    assert "with 10 labels a class the linear probe is ahead" in text
    assert "with 50 labels a class full fine-tuning is ahead" in text and "cross between 10 and 50" in text
    labels = [row[0] for row in tables.budgets(evidence).rows]
    assert labels == ["10", "50", "100"] and "n = 2" in tables.budgets(evidence).caption
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
    assert "It is raised by: the test images select the epoch (linear probe)" in text and "lowered by" not in text
    effects = {one["defect"]: one for one in measures.defect_effects(evidence)}
    assert effects["select_on_test"]["effect"] > 0.1 and effects["select_on_test"]["effect_is_clear"]
    assert not effects["frozen_dropout"]["effect_is_clear"]
    assert (
        "No single defect can be said"
        in findings.defects(study(lambda *_: 0.6, seeds="0,1", defects="linear_probe")).markdown
    )


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
    assert measures.reported(run) == (run.info["test_accuracy"], 0.5)
    other = evidence.runs["linear_probe"]["corrected"][0]
    assert measures.reported(other)[1] == other.info["test_loss"]


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
        "select_on_test", "unstratified", "frozen_dropout", "batch_averages"
    }  # fmt: skip


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
        ({"mirror": "no"}, "mirror is 'no'; allowed are true and false"),
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
