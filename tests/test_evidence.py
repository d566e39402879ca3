"""Tables, plots and sentences from made-up records: every form a sentence can take, and the figures it prints."""

import json
import re
import xml.etree.ElementTree as ElementTree

import made_up
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CLASSES, IMAGES, rewrite
from threadpoolctl import threadpool_limits

from report_lib import data, evidence
from report_lib.config import APPROACHES, DEFECTS
from report_lib.config.registries import Approach
from report_lib.evidence import designs, measures, report_numbers, results, stats
from report_lib.files import InputError, read_yaml
from report_lib.page import claims, effects, findings, pairs, pictures, plots, style, tables, words

FULL = {"presets": "published,corrected,tuned", "seeds": "0,1,2", "budgets": "10,50", "defects": "linear_probe"}
PAIR = "full_finetune minus linear_probe"
PUBLISHED = read_yaml("report/published.yaml")


def better(approach, kind, value):
    return 0.8 if approach == "full_finetune" else 0.6


def worse(*what):
    return 1.4 - better(*what)


def pixels(classes=CLASSES):
    """Grey pictures for the test images of made-up runs."""
    labels = torch.arange(IMAGES) % len(classes)
    stored = torch.zeros((IMAGES, 8, 8, 3), dtype=torch.uint8)
    return data.Images("made up", tuple(classes), stored, labels, stored, labels, made_up.FINGERPRINT)


def parts(study):
    """All that an analysis shows of a study; None where it has nothing to say."""
    images, runs = pixels(), study.of()
    for approach in study.approaches:
        of_approach = study.runs(approach)
        yield from (tables.test(of_approach), plots.curves(of_approach),
                    plots.confusion(of_approach), words.training(of_approach), words.test(of_approach),
                    words.cost(of_approach), words.conclusion(of_approach), words.settings(of_approach[0]),
                    words.data(of_approach[0]))  # fmt: skip
    yield from (claims.abstract(study), claims.claims(study, PUBLISHED), tables.comparison(study),
                tables.discordant(study),
                findings.time(study), claims.verdict(study), tables.cost(study), tables.published(study, PUBLISHED),
                findings.defects(study), effects.defects(study), findings.budgets(study), effects.budgets(study),
                findings.classes(study), findings.calibration(study), tables.provenance(study),
                tables.environment(study), findings.differences(study), findings.selection(study),
                findings.agreement(study), tables.calibration(study),
                effects.agreement(study), effects.same_answer(study), claims.limits(study, PUBLISHED["cifar10"]),
                plots.layers(study), plots.validation(runs), plots.confusion(*runs.values()),
                plots.accuracy_against_time(study), plots.budgets(study),
                plots.classes(runs), plots.reliability(runs), pictures.samples(images), pictures.mistakes(runs, images),
                pictures.disagreements(runs, images))  # fmt: skip


def check(part):
    looks = part.looks()
    assert "nan" not in looks["text/plain"].lower().replace("finan", "") and looks["text/plain"].strip()
    if hasattr(part, "svg"):
        ElementTree.fromstring(f"<figure>{part.svg}</figure>")
        assert part.alt and part.caption.endswith(".") and "<script>" not in part.svg


@pytest.mark.parametrize("parameters", [FULL, {}, {"presets": "corrected,tuned", "seeds": "0,1", "present": "tuned"}])
def test_every_part_says_something_true_of_every_class_name(study, parameters):
    for part in filter(None, parts(study(better, **parameters))):
        check(part)


@pytest.fixture
def third(monkeypatch):
    monkeypatch.setitem(APPROACHES, "last_block", Approach("last-block tuning", "last_block", "#009E73", "^"))


def test_three_approaches_are_three_rows_and_two_pairs(study, third):
    evidence_of = study(lambda approach, *_: {"linear_probe": 0.6, "last_block": 0.7}.get(approach, 0.8), **FULL)
    for part in filter(None, parts(evidence_of)):
        check(part)
    numbers = report_numbers(evidence_of, PUBLISHED)
    assert set(numbers["comparisons"]["tuned"]) == {PAIR, "last_block minus linear_probe"}
    assert set(numbers["comparisons"]["published"]) == {PAIR}, "no listing trains the last block"
    assert [row[0] for row in tables.comparison(evidence_of).rows][:3] == [
        "linear probe", "full fine-tuning", "last-block tuning"
    ]  # fmt: skip
    for figure in (plots.budgets(evidence_of), plots.validation(evidence_of.of())):
        assert all(approach.colour.lower() in figure.svg.lower() for approach in APPROACHES.values())
    assert "last-block tuning" in claims.verdict(evidence_of).markdown


def test_one_approach_alone_is_compared_with_nothing(study, monkeypatch):
    monkeypatch.delitem(APPROACHES, "full_finetune")
    alone = study(0.7, seeds="0,1")
    for part in filter(None, parts(alone)):
        check(part)
    assert claims.verdict(alone) is None and report_numbers(alone)["comparisons"] == {"corrected": {}}


def test_a_preset_that_no_approach_has_is_compared_with_nothing(study, third, monkeypatch):
    for name in ("full_finetune", "linear_probe"):  # put back in the opposite order, so that the registry is as it was
        monkeypatch.delitem(APPROACHES, name)
    alone = study(0.7, presets="published,corrected")
    for part in filter(None, parts(alone)):
        check(part)
    numbers = report_numbers(alone, PUBLISHED)
    assert numbers["comparisons"] == {"published": {}, "corrected": {}} and numbers["published"] == {}


def test_the_published_preset_alone_has_a_report(study):
    """Test images selected every epoch, and there is no `corrected` that a defect could be compared with."""
    bare = study(better, presets="published", present="published", budgets="10", defects="linear_probe")
    for part in filter(None, parts(bare)):
        check(part)
    assert designs.defect_effects(bare) == [] and effects.defects(bare) is None and plots.reliability(bare.of()) is None
    assert "Hollow" in plots.accuracy_against_time(bare).caption


def test_a_study_of_ones_own_pictures_speaks_of_them_alone(study):
    mine = study(better, presets="corrected,tuned", present="tuned", seeds="0,1,2", data_name="My flowers")
    assert claims.claims(mine, PUBLISHED) is None and tables.published(mine, PUBLISHED) is None
    assert findings.defects(mine) is None and effects.defects(mine) is None and findings.budgets(mine) is None
    assert "published" not in report_numbers(mine, PUBLISHED)
    said = "\n".join(part.looks()["text/plain"] for part in filter(None, parts(mine)))
    assert "homework" not in said and "T4" not in said
    first = claims.abstract(mine).markdown
    assert "My flowers" in first and "take **full fine-tuning** (preset *tuned*)" in first and "is ahead of" in first
    assert "*corrected* has plain default settings; *tuned* adds a falling learning rate" in first


def test_the_better_one_is_named(study):
    def said(accuracy):
        return pairs.ahead(*evidence.comparisons(study(accuracy, seeds="0,1,2").of()))

    assert said(better).startswith("full fine-tuning is ahead of the linear probe by ")
    assert said(worse).startswith("the linear probe is ahead of full fine-tuning by ")
    assert said(1.0) == "full fine-tuning and the linear probe get the same test images right"
    assert report_numbers(study(better, seeds="0,1,2"))["comparisons"]["corrected"][PAIR]["seeds_won"] == 3


def test_where_an_approach_gains_is_said_with_its_sign(study):
    def said(accuracy):
        return findings.classes(study(accuracy, seeds="0,1,2")).markdown

    many = len(CLASSES)
    ahead = said(lambda approach, *_: 0.9 if approach == "full_finetune" else 0.3)
    assert f"full fine-tuning is clearly ahead of the linear probe on all {many} classes (most on " in ahead
    assert f"and clearly behind on none of the {many} classes. " in ahead and "+" in ahead
    behind = said(lambda approach, *_: 0.3 if approach == "full_finetune" else 0.9)
    assert f"clearly ahead of the linear probe on none of the {many} classes and clearly behind" in behind
    assert f"behind on all {many} classes (most on " in behind
    assert "most on" not in said(1.0)


def test_the_main_figure_says_which_points_the_test_images_selected(study):
    caption = plots.accuracy_against_time(study(better, **FULL)).caption
    assert (
        "means of all seeds and, as dots, the seeds" in caption
        and "). Hollow: the test images selected the epoch." in caption
    )
    plain = plots.accuracy_against_time(study(better, presets="corrected,tuned", seeds="0")).caption
    assert plain == "Test accuracy against training time, with 95 % intervals (Wilson, over test images)."


def test_the_crossing_of_few_labels_is_named(study):
    def crossing(approach, kind, value):
        few = (kind, value) == ("budget", 10)
        return 0.7 if (approach == "linear_probe") == few else 0.5

    text = findings.budgets(study(crossing, seeds="0,1", budgets="10,50")).markdown
    assert "he linear probe leads at 10 per class; full fine-tuning leads at 50 and 100 per class" in text
    assert "cross between 10 and 50 labels" in text
    made = study(crossing, seeds="0,1", budgets="10,50")
    assert findings.not_ahead_with(made, "full_finetune") == ["10"] and not findings.not_ahead_with(
        made, "linear_probe"
    )
    assert "; with 10 it is not shown to be ahead of the linear probe" in claims.recommended(made)
    labels = [row[0] for row in effects.budgets(study(crossing, seeds="0,1", budgets="10,50")).rows]
    assert labels == ["10", "50", "100"]
    assert "cross" not in findings.budgets(study(better, seeds="0,1", budgets="10,50")).markdown


def test_a_budget_beyond_the_studys_own_rests_on_one_seed_and_says_so(study):
    for seeds, said in (("0,1", "leads at 10, 20 and 50 (one seed) per class"), ("0", "leads at 10, 20 and 50 per")):
        made = study(better, per_class=20, budgets="10,50", seeds=seeds)
        assert said in findings.budgets(made).markdown


def test_what_was_not_run_is_not_shown(study):
    least = study(better)
    nothing = (plots.budgets(least), findings.budgets(least), effects.budgets(least), findings.defects(least),
               effects.defects(least), claims.claims(least, PUBLISHED))  # fmt: skip
    assert nothing == (None,) * 6


def test_defects_that_flatter_are_told_from_those_that_do_nothing(study):
    def flattered(approach, kind, value):
        return 0.75 if value == "select_on_test" else 0.6

    flattering = study(flattered, presets="published,corrected", seeds="0,1", defects="linear_probe")
    text = findings.defects(flattering).markdown
    assert "f the other defects, none alone clearly lowers" in text and "ll defects together change it for" in text
    assert "full fine-tuning by" in text and ", none of which was run alone" in text, "only the probe's were"
    effects = {each["defect"]: each for each in designs.defect_effects(flattering)}
    assert effects["select_on_test"]["effect"].mean == 0, "the last epoch is best on test and validation images alike"
    assert effects["frozen_dropout"]["same_images_right"] and set(effects) <= {*DEFECTS, "all"}


def test_holding_nothing_out_is_compared_with_selecting_on_the_test_images(study):
    """The one brings the other along, so that only what it adds is its own effect."""
    shares = {"select_on_test": 0.7, "train_on_all": 0.8, "published": 0.9}
    made = study(lambda approach, kind, value: shares.get(value, 0.6), presets="published,corrected", seeds="0,1",
                 defects="full_finetune")  # fmt: skip
    effects = {each["defect"]: each for each in designs.defect_effects(made)}
    names = ("train_on_all", "all")
    assert [effects[name]["against"] for name in names] == ["select_on_test", "corrected"]
    assert [round(effects[name]["effect"].mean, 1) for name in names] == [0.1, 0.3]
    assert "two defects" in effects["train_on_all"]["label"]


def test_temperatures_are_fitted_on_held_out_images_or_not_at_all(study):
    made = study(better, presets="published,corrected", seeds="0")
    assert measures.calibration(made.runs("linear_probe", "published")) is None
    assert plots.reliability(made.of("published")) is None
    numbers = report_numbers(made)["approaches"]["linear_probe"]
    assert (
        numbers["published"]["calibration"] is None and "temperature_scaled" not in numbers["published"]["reliability"]
    )
    calibration = numbers["corrected"]["calibration"]
    assert calibration["ece_scaled"] < calibration["ece"] and calibration["test_loss_scaled"] < calibration["test_loss"]


def test_an_accuracy_that_the_test_images_selected_is_called_so(study):
    made = study(better, presets="published,corrected", seeds="0")
    for approach in made.approaches:
        assert "no estimate for new images" in words.test(made.runs(approach, "published")).markdown
        assert "read once" in words.test(made.runs(approach)).markdown


def test_one_seed_and_few_discordant_images_claim_nothing():
    a = np.zeros((1, 360), bool)
    b = a.copy()
    b[0, :4] = True
    difference = stats.paired_difference(a, b)
    assert difference.low > 0 and difference.p == pytest.approx(0.125) and not difference.clear


def test_differences_by_class_cover_what_they_claim():
    """Paired, three seeds, two classes: of 300 experiments, about 95 % hold the truth."""
    rng, labels, held = np.random.default_rng(5), np.arange(200) % 2, 0
    for _ in range(300):
        a, b = (rng.random((3, 200)) < share for share in (0.6, 0.7))
        found = [stats.paired_difference(a[:, labels == label], b[:, labels == label]) for label in (0, 1)]
        held += sum(difference.low <= 0.1 <= difference.high for difference in found)
    assert 0.91 <= held / 600 <= 0.995


def test_runs_on_other_data_are_not_compared(study):
    made = study(better, seeds="0")
    rewrite(made.runs("full_finetune")[0], "f" * 64, "e" * 64)
    with pytest.raises(InputError, match="other data or weights"):
        made_up.again(made).of()


def test_times_on_different_devices_are_not_weighed(study):
    made = study(better, seeds="0")
    rewrite(made.runs("full_finetune")[0], '"device": "cpu"', '"device": "a GPU"')
    text = findings.time(made_up.again(made)).markdown
    assert "on different devices" in text and "not compared" in text
    assert " times" not in claims.verdict(made_up.again(made)).markdown


@pytest.mark.parametrize(
    ("train", "held_out", "said"),
    [
        ((4, 4, 4), (1, 1, 1), "Each class has 4 training images."),
        ((4, 5, 4), (1, 1, 1), "with 4 to 5 training images each."),
        ((2, 30, 8), (0, 7, 2), "1 class has too few images to hold one out (<b>cat</b>), so"),
        ((2, 30, 8), (0, 7, 2), "dog trains with 30 images, <b>cat</b> with 2. Always naming dog would be right on"),
        ((2, 2, 30), (0, 0, 7), "2 classes have too few images to hold one out (<b>cat</b>, dog), so"),
        ((5, 5, 5), (0, 0, 0), "Each class has 5 training images."),
    ],
)
def test_imbalance_of_the_training_images_is_said(train, held_out, said):
    labels = [np.repeat(np.arange(3), counts) for counts in (train, held_out)]
    markdown = words.balance(*labels, ["<b>cat</b>", "dog", "ant"]).markdown
    assert said in re.sub(r"\\(.)", r"\1", markdown)


def test_what_was_left_out_or_changed_is_said(study):
    run = study(0.7).first
    facts = {"left_out": {"undecodable images": 2, "text files (.txt)": 1200}, "copies": 3, "range": [0, 4095],
             "notes": ["two folders were one class."]}  # fmt: skip
    changed = made_up.change(run, data=run.info["data"] | {"facts": facts})
    said = re.sub(r"\\(.)", r"\1", words.data(changed).markdown)
    assert (
        "2 undecodable images" in said and "1,200 text files (.txt)" in said and "copies of training images: 3" in said
    )
    assert "Two folders were one class." in said


def test_two_hundred_classes_fit(study):
    classes = [f"a rather long class name, number {n}" for n in range(200)]
    made = study(better, classes=classes, seeds="0")
    figure = plots.classes(made.of())
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', figure.svg).group(1)) for side in ("width", "height"))
    assert width <= 6.4 * 72 and height < 9 * 72 and "20 of 200" in figure.caption
    assert "confusion" in plots.confusion(made.runs("linear_probe")).label


def test_shortened_names_of_one_set_stay_distinct():
    names = ["Corn_(maize)___Common_rust_", "Corn_(maize)___healthy", "Corn_(maize)___Northern_Leaf_Blight",
             "Cherry_(including_sour)___healthy", "Cherry_(including_sour)___Powdery_mildew", "cat"]  # fmt: skip
    short = style.short_names(names, 14)
    assert len(set(short)) == len(names) and short[-1] == "cat"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=30, unique_by=str.strip), st.integers(6, 28))
def test_any_names_that_differ_stay_distinct(names, width):
    """Class names are folders' names: they differ by more than blanks at their ends."""
    begins = [f"the same long beginning, {number // 3} {name}" for number, name in enumerate(names)]
    for given_names in (names, begins, [f"{name} and the same long end" for name in names]):
        if len(set(given_names)) == len(given_names):
            short = style.short_names(given_names, width)
            assert len(set(short)) == len(given_names) and max(map(len, short)) <= width


def test_no_mistake_and_no_disagreement(study):
    made = study(1.0, seeds="0")
    assert "Pictures:" not in pictures.mistakes(made.of(), pixels()).alt


def test_what_only_one_of_three_gets_right_is_shown(study, third):
    made = study(lambda approach, *_: 0.8 if approach == "last_block" else 0.5, seeds="0")
    figure = pictures.disagreements(made.of(), pixels())
    right = {approach: measures.right(runs)[0] for approach, runs in made.of().items()}
    alone = right["last_block"] & ~right["linear_probe"] & ~right["full_finetune"]
    assert f"{alone.sum()} only last-block tuning" in figure.caption and "the surest of the others" in figure.caption
    assert pictures.disagreements({"linear_probe": made.runs("linear_probe")}, pixels()) is None


def test_pictures_of_other_images_than_the_runs_are_refused(study):
    import dataclasses

    other = dataclasses.replace(pixels(), fingerprint="e" * 64)
    with pytest.raises(InputError, match="images have changed"):
        pictures.mistakes(study(better, seeds="0").of(), other)


def test_a_learning_rate_that_was_given_is_owned_up_to(study):
    assert "was given" not in claims.abstract(study(better)).markdown
    assert "The learning rate 0.0005 was given" in claims.abstract(study(better, learning_rate=0.0005)).markdown


def test_the_last_batch_of_an_epoch_is_a_step_too(study):
    run = study(0.7, epochs=5, batch_size=32, per_class=50).first
    assert run.info["data"]["train"] == 200 and "make 35 steps" in words.settings(run).markdown


def test_what_a_notebook_changed_is_said(study):
    run = study(0.7).first
    said = words.settings(made_up.change(run, modified="trained are classifier.4.weight")).markdown
    assert "changed the run: trained are classifier" in said


def test_runs_made_with_several_versions_are_said_to_be(study):
    made = study(better, seeds="0,1")
    rewrite(made.runs("full_finetune")[1], '"torch": "2"', '"torch": "3"')
    rows = dict(tables.environment(made_up.again(made)).rows)
    assert rows["packages"] == "torch 2, 3" and rows["Python"] == "3"


def test_no_folder_of_a_machine_is_published(study):
    made = study(better, seeds="0")
    command = "python -m report_lib run --data '../some/where/a b.tar' --weights=/x/y.pth --runs /srv/runs/ --seed 0"
    rewrite(made.first, '"command": "made up"', json.dumps({"command": command})[1:-1])
    published = "python -m report_lib run --data 'a b.tar' --weights=y.pth --runs runs/ --seed 0"
    again = made_up.again(made)
    assert dict(tables.environment(again).rows)["command of the first"] == published
    assert report_numbers(again)["provenance"]["command"] == published


def test_runs_of_the_same_seeds_and_commit_share_a_row_of_provenance_and_all_are_counted(study):
    made = study(better, presets="corrected", seeds="0,1", budgets="10,50", defects="full_finetune")
    rows = {(row[0], row[1]): row[2] for row in tables.provenance(made).rows}
    defects = sum(map(len, made.side("full_finetune", "defect").values()))
    budgets = sum(map(len, made.side("linear_probe", "budget").values()))
    assert rows == {
        ("linear probe", f"corrected (2), budgets 10, 50 ({budgets})"): str(2 + budgets),
        ("full fine-tuning", f"corrected (2), defects ({defects}), budgets 10, 50 ({budgets})"): str(
            2 + defects + budgets
        ),
    }
    rewrite(made.runs("linear_probe", "corrected")[0], '"commit": "', '"commit": "f00')
    apart = [row for row in tables.provenance(made_up.again(made)).rows if row[0] == "linear probe"]
    assert [row[1] for row in apart] == ["corrected (2)", f"budgets 10, 50 ({budgets})"], apart


def test_results_hold_every_preset_defect_and_budget(study):
    made = study(better, **FULL)
    numbers = report_numbers(made, PUBLISHED, {"linear_probe": {"trials": []}})
    json.dumps(numbers, allow_nan=False)
    for approach, presets in numbers["approaches"].items():
        assert set(presets) == {"published", "corrected", "tuned"}
        for preset, each in presets.items():
            right = measures.right(made.runs(approach, preset))
            assert each["test_accuracy"]["mean"] == pytest.approx(right.mean()) and each["test_accuracy"]["n"] == 3
            for bins in each["reliability"].values():
                assert sum(bin["count"] for bin in bins) == right.size
            for run, record in zip(each["runs"], made.runs(approach, preset), strict=True):
                for image in run["surest_mistakes"]:
                    labels, logits = (record.predictions[f"test_{what}"] for what in ("labels", "logits"))
                    assert record.classes[labels[image["index"]]] == image["true"] != image["predicted"]
                    assert record.classes[logits[image["index"]].argmax()] == image["predicted"]
    assert [each["labels_per_class"] for each in numbers["label_budgets"]] == [10, 50, 100]
    assert {each["defect"] for each in numbers["defects"]} == {
        "select_on_test", "unstratified", "frozen_dropout", "batch_averages", "all"
    }  # fmt: skip
    pair = numbers["comparisons"]["corrected"][PAIR]
    right = [measures.right(made.runs(approach)) for approach in made.approaches]
    for counts, probe, tuned in zip(pair["images"], *right, strict=True):
        assert counts["both"] + counts["only_a"] == probe.sum() and counts["both"] + counts["only_b"] == tuned.sum()
    assert pair["accuracy"]["mean"] == pytest.approx((right[1].astype(float) - right[0]).mean())
    assert numbers["published"]["linear_probe"]["test_accuracy_ci95"][0] < 0.7969 and numbers["search"]
    assert numbers["published"][PAIR]["mean"] == pytest.approx(0.009) and not numbers["published"][PAIR]["clear"]


def test_results_hold_the_intervals_that_sentences_give(study):
    numbers = report_numbers(study(better, presets="published,corrected", seeds="0,1"), PUBLISHED)
    for run in numbers["approaches"]["linear_probe"]["corrected"]["runs"]:
        gap = run["test_minus_validation"]
        assert gap["mean"] == pytest.approx(run["test_accuracy"] - run["validation_accuracy"])
        assert gap["ci95"][0] < gap["mean"] < gap["ci95"][1] and "Newcombe" in gap["ci95_method"]
        assert run["test_accuracy_ci95"] == stats.wilson(round(run["test_accuracy"] * IMAGES), IMAGES)
    assert numbers["approaches"]["full_finetune"]["published"]["runs"][0]["test_minus_validation"] is None
    gap = designs.published_difference(PUBLISHED, "linear_probe", "full_finetune")
    assert gap.mean == pytest.approx(0.009) and not gap.clear
    assert numbers["comparisons"]["corrected"].keys() == {PAIR}


def test_no_result_depends_on_the_number_of_threads(study):
    """A sum that threads share is rounded as they share it, and two machines would give two results.json."""
    made, numbers = study(better, **FULL), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            numbers.append(report_numbers(made_up.again(made), PUBLISHED))
    assert numbers[0] == numbers[1]


def test_predictions_are_read_and_compared_once(study, monkeypatch):
    made = study(better, **FULL)
    calm, reads, pairs = np.load, [], []
    monkeypatch.setattr(np, "load", lambda path, **options: reads.append(path) or calm(path, **options))
    difference = stats.paired_difference
    monkeypatch.setattr(stats, "paired_difference", lambda *given: pairs.append(1) or difference(*given))
    again = made_up.again(made)
    for _ in range(2):
        list(parts(again))
        report_numbers(again, PUBLISHED)
    assert len(reads) == len(set(reads)) <= len(again.all_runs)
    count = len(pairs)
    list(parts(again))
    assert len(pairs) == count, "comparisons are computed once"


def test_results_are_a_frame_of_a_row_per_run(study):
    made = study(better, seeds="0,1,2")
    frame = results([*made.runs("linear_probe"), *made.runs("full_finetune")])
    assert list(frame["seed"]) == [0, 1, 2, 0, 1, 2] and set(frame["approach"]) == set(made.approaches)
    assert frame["test_accuracy"].iloc[0] == made.first.info["test_accuracy"]


@pytest.mark.parametrize(
    ("height", "ends"), [(1.5, (1.24, 1.30)), (1.5, (0.0, 0.01)), (3.0, (1.0, 1.0)), (2.3, (0.2, 0.9))]
)
def test_the_names_at_the_ends_of_lines_never_lie_on_each_other(height, ends):
    with style.styled():
        fig, (axis, _) = plt.subplots(1, 2, figsize=(style.WIDTH, height))
        for end in ends:
            axis.plot([1, 10], [1.6, end])
        axis.set(title="Loss", xlabel="epoch", ylim=(0, None))
        style.name_ends(axis, {name: (end, "black") for name, end in zip(("one", "other"), ends, strict=True)})
        fig.canvas.draw()
        one, other = (text.get_window_extent() for text in axis.texts)
    plt.close(fig)
    assert not one.overlaps(other)


@pytest.mark.parametrize(("rows", "across"), [(1, 6), (2, 6), (3, 6), (2, 4), (2, 9), (2, 10)])
@pytest.mark.parametrize(
    ("above", "below"), [("deer", "frog\n> 99 %"), ("two lines\nof a name", "frog\n99 %"), ("deer", "")]
)
def test_the_words_of_a_gallery_are_whole_and_no_row_is_taken_for_the_next(rows, across, above, below, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "drawn", lambda fig, *words: drawn.append(fig))
    shown = pictures.Shown(np.zeros((32, 32, 3), np.uint8), above, below)
    pictures._gallery("fig-some", "Some.", [("full fine-tuning", [shown] * across)] * rows)
    drawn[0].canvas.draw()
    axes = np.array(drawn[0].axes).reshape(rows, across)
    tops = [line[0].title.get_window_extent().y1 for line in axes]
    ends = [line[0].xaxis.label.get_window_extent().y0 if below else line[0].get_window_extent().y0 for line in axes]
    plt.close(drawn[0])
    assert tops[0] <= drawn[0].bbox.height + 1 and ends[-1] >= -1  # pixels
    assert all(end - top > 5 for end, top in zip(ends, tops[1:], strict=False))
