"""The rules behind the sentences: where an older rule said what the runs contradict, each test has such runs."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from made_up import change

from report_lib.config import APPROACHES
from report_lib.evidence import costs, designs, measures, report_numbers
from report_lib.evidence.results import _cost
from report_lib.files import read_yaml
from report_lib.page import claims, effects, findings, numbers, pairs, tables, words

PUBLISHED = read_yaml("report/published.yaml")


def better(approach, kind, value):
    return 0.8 if approach == "full_finetune" else 0.6


def with_epochs(run, **columns):
    """The run with other columns of epochs.csv."""
    other = change(run)
    other.__dict__["epochs"] = run.epochs.assign(**columns)
    other.__dict__["predictions"] = run.predictions
    return other


def with_info(runs, **fields):
    """Runs with other fields of run.json, one value per run."""
    made = []
    for at, run in enumerate(runs):
        other = change(run, **{name: values[at] for name, values in fields.items()})
        other.__dict__.update(epochs=run.epochs, predictions=run.predictions)
        made.append(other)
    return tuple(made)


# --- selection -----------------------------------------------------------------------------------------------------


def test_selection_is_judged_on_all_runs_together(study, monkeypatch):
    """Each seed's own interval holds zero, for its validation images are few; all runs together show it."""
    made = study(better, presets="corrected,tuned", seeds="0,1,2,3,4")
    inflated = {}
    for preset in made.presets:
        for approach in made.approaches:
            runs = made.runs(approach, preset)
            inflated[approach, preset] = with_info(
                runs, validation_accuracy=[run.info["test_accuracy"] + 0.06 + 0.002 * run.seed for run in runs]
            )
    monkeypatch.setattr(type(made), "runs", lambda _, approach, preset=None: inflated[approach, preset or "corrected"])
    assert not any(measures.selection_gap(run).clear for runs in inflated.values() for run in runs), "the old rule"
    found = designs.flattery(made)
    assert found.difference.clear and found.difference.mean == pytest.approx(0.064)
    assert found.above == found.runs == 20
    text = findings.selection(made).markdown
    assert "exceeds test accuracy in 20 of the 20 runs" in text and "validation flatters the selected epochs" in text


def test_runs_of_one_seed_are_no_independent_witnesses(study):
    """Twelve runs share three draws of validation images: the interval is as wide as three draws make it."""
    made = study(better, presets="corrected,tuned", seeds="0,1,2")
    found = designs.flattery(made)
    assert found.runs == 12
    gaps = [np.mean([run.info["validation_accuracy"] - run.info["test_accuracy"]
                     for preset in made.presets for approach in made.approaches
                     for run in made.runs(approach, preset) if run.seed == seed]) for seed in (0, 1, 2)]  # fmt: skip
    least = 4.3 * np.std(gaps, ddof=1) / 3**0.5
    assert (found.difference.high - found.difference.low) / 2 >= least
    assert found.difference.mean == pytest.approx(np.mean(gaps))
    assert designs.flattery(study(better, seeds="0")) is None and findings.selection(study(better, seeds="0")) is None


def test_the_gap_of_an_approach_is_that_within_each_run(study):
    runs = study(better, seeds="0,1,2").runs("linear_probe")
    gap = measures.gap(runs)
    assert gap.mean == pytest.approx(np.mean([r.info["test_accuracy"] - r.info["validation_accuracy"] for r in runs]))
    assert numbers.points(gap) in words.test(runs).markdown and "of 3 seeds" in words.test(runs).markdown


# --- calibration ---------------------------------------------------------------------------------------------------


def test_calibration_is_judged_on_the_predictions_of_all_seeds(study):
    """One seed is as sure as it is right, two are too sure: together the network is too sure of itself."""
    runs = study(0.6, seeds="0,1,2,3,4").runs("linear_probe")
    over = measures.calibration(runs)["overconfidence"]
    assert over.clear and over.mean > 0.05
    pooled = [measures.probabilities(run)[0].max(1) - measures.right((run,))[0] for run in runs]
    assert over.mean == pytest.approx(np.mean(pooled))


# --- one rounding, one definition ----------------------------------------------------------------------------------


def test_an_accuracy_is_rounded_alike_in_every_table_and_sentence(study):
    def spread_out(approach, kind, value):
        return {"corrected": 0.6, "tuned": 0.7}.get(value, 0.5)

    made = study(spread_out, presets="published,corrected,tuned", seeds="0,1", budgets="10", defects="linear_probe")
    shown = numbers.rate(measures.accuracy(made.runs("linear_probe"))).replace(numbers.NBSP, " ").removesuffix(" %")
    assert f"{shown} %" in words.test(made.runs("linear_probe")).markdown.replace(numbers.NBSP, " ")
    of_tables = [row[3] for row in tables.comparison(made).rows if row[:2] == ("linear probe", "corrected")]
    beside = tables.published(made, {"images": 1}).rows
    of_tables += [row[3] for row in beside if row[:2] == ("linear probe", "here, corrected")]
    assert [cell.split(" ±")[0] for cell in of_tables] == [shown, shown]
    everywhere = [row[2] for row in effects.defects(made).rows] + [row[3] for row in effects.budgets(made).rows]
    assert all(len(cell.split(" ±")[0].partition(".")[2]) == 1 for cell in everywhere)


def test_images_per_second_are_those_of_the_steps_and_of_the_features(study):
    """The old number counted the probe's kept features once per epoch, and those seconds with them."""
    made = study(better, seeds="0,1")
    results = report_numbers(made)["approaches"]
    rates = {row[0]: row[4] for row in tables.cost(made).rows}
    for approach in made.approaches:
        run = made.runs(approach)[0]
        numbers_of = results[approach]["corrected"]
        expected = run.info["data"]["train"] * 3 / run.epochs["train_seconds"].sum()
        assert numbers_of["runs"][0]["images_per_second"] == pytest.approx(expected)
        assert numbers_of["cost"]["images_per_second"] == pytest.approx(expected)
        assert f"{expected:,.0f} images per second" in words.cost(made.runs(approach)).markdown
        assert f"{expected:,.0f}" == rates[APPROACHES[approach].name]
    features = results["linear_probe"]["corrected"]["cost"]["features_images_per_second"]
    assert features == made.first.info["data"]["train"] / 5.0
    assert f"at {features:,.0f} per second" in words.cost(made.runs("linear_probe")).markdown
    assert results["full_finetune"]["corrected"]["cost"]["features_images_per_second"] is None


def test_memory_is_the_most_of_any_seed_everywhere(study):
    runs = with_info(study(better, seeds="0,1,2").runs("linear_probe"), peak_memory_mib=[900.0, 2471.0, 1000.0])
    assert costs.peak_memory(runs) == 2471 and "peaked at 2,471 MiB" in words.cost(runs).markdown
    assert _cost(runs)["peak_memory_mib"] == 2471


def test_times_of_unlike_numbers_of_epochs_say_so(study):
    """The search ends with fewer epochs for the probe than for fine-tuning."""
    unlike = study(better, presets="corrected,tuned")
    assert findings.time(unlike).markdown.count("for 10 epochs and not 5") == 1
    assert " 5 to 10 epochs, " in claims.abstract(unlike).markdown
    assert "and not" not in findings.time(study(better, presets="corrected,tuned", epochs=3)).markdown


def test_a_time_measured_once_has_no_deviation_between_seeds(study):
    made = study(better, seeds="0,1,2")
    reused = with_info(made.runs("linear_probe"), train_seconds=[20.8, 20.9, 21.1], features_seconds=[20.22] * 3)
    assert "±" not in tables.training_time(reused) and "by seed" not in words.took(reused)
    own = with_info(made.runs("linear_probe"), train_seconds=[20.8, 20.9, 21.1], features_seconds=[20.1, 20.2, 20.3])
    assert "±" in tables.training_time(own) and "by seed" in words.took(own)
    assert "measured once" in findings.time(made).markdown
    once = with_info(made.runs("linear_probe")[:1], train_seconds=[21.0])
    assert not costs.features_shared(once)


def test_a_column_of_losses_holds_one_kind_of_loss(study):
    bare = study(better, presets="published", present="published", seeds="0,1")
    assert [row[5] for row in tables.comparison(bare).rows] == ["", ""], "its losses are those of test images"
    assert not any("validation" in head for head in tables.test(bare.runs("linear_probe")).header)
    assert words.training(bare.runs("linear_probe")).markdown.startswith("Test accuracy")


def test_what_else_the_machine_did_is_said_as_measured(study):
    runs = study(better, seeds="0,1").runs("full_finetune")
    assert "processes" not in words.cost(runs).markdown, "nothing was measured"
    shares = [run.info["provenance"] | {"others_share": share} for run, share in zip(runs, (0.031, 0.25), strict=True)]
    text = words.cost(with_info(runs, provenance=shares)).markdown.replace(numbers.NBSP, " ")
    assert "other processes took 3.1 % to 25.0 % of the machine’s CPU time" in text
    assert (
        costs.others_share(with_info(runs[:1], provenance=[runs[0].info["provenance"] | {"others_share": None}]))
        is None
    )


def test_epochs_of_different_approaches_are_not_called_unequal(study):
    made = study(better, seeds="0,1")
    assert "ingle epochs" not in findings.time(made).markdown + claims.limits(made).markdown, "a probe's are shorter"
    run = with_epochs(made.runs("full_finetune")[0], train_seconds=[30.0, 31.0, 90.0])
    assert "Single epochs took 30" in words.cost((run,)).markdown


def test_who_never_gets_there_is_said_not_to(study):
    (pair,) = measures.comparisons(study(lambda approach, *_: 0.4 if approach == "full_finetune" else 0.8).of())
    assert claims.overtakes(pair).endswith("; full fine-tuning does not reach that")


# --- defects -------------------------------------------------------------------------------------------------------


def test_what_the_test_images_add_is_the_gap_within_the_run(study, monkeypatch):
    """Between runs trained apart the difference may be negative; within a run the best epoch is never the worse one."""
    made = study(lambda approach, kind, value: 0.5 if value == "select_on_test" else 0.6, presets="corrected",
                 seeds="0,1,2", defects="linear_probe")  # fmt: skip
    flattered = tuple(
        with_epochs(run, validation_accuracy=[0.40, 0.50 + 0.01 * run.seed, 0.50])
        for run in made.side("linear_probe", "defect")["select_on_test"]
    )
    pair = measures.compare(made.runs("linear_probe"), flattered)
    assert pair.accuracy.high < 0, "the old rule"
    found = designs._selected_on_test(pair)
    assert (found.low, found.high) == (0.0, pytest.approx(0.02)) and found.mean == pytest.approx(0.01)
    assert not found.clear and "range of the seeds" in found.method


def test_holding_nothing_out_is_called_two_defects(study):
    made = study(better, presets="corrected", seeds="0,1", defects="full_finetune")
    label = next(row[1] for row in effects.defects(made).rows if "held out" in row[1])
    assert "two defects" in label
    assert "alone" not in effects.defects(made).caption


# --- the same accuracy, agreement ----------------------------------------------------------------------------------


def test_what_is_reached_once_is_kept(study):
    """A later epoch may be worse; the best one is what a run keeps."""
    run = study(better, seeds="0").runs("full_finetune")[0]
    run = with_info((run,), start_seconds=[2.0], features_seconds=[5.0])[0]
    run.__dict__["epochs"] = run.epochs.assign(validation_accuracy=[0.7, 0.5, 0.6], train_seconds=[10.0, 11.0, 12.0])
    at = {target: costs.reached((run,), target).seconds[0] for target in (0.75, 0.65, 0.45)}
    assert at == {0.75: None, 0.65: 17.0, 0.45: 17.0}


def test_seconds_of_those_that_reach_it_do_not_stand_for_all(study):
    made = study(better, presets="published,corrected,tuned", seeds="0,1,2")
    table = effects.same_answer(made)
    assert len(table.rows) == 4, "the preset published has no validation accuracy"
    found = costs.reached(made.runs("full_finetune"), 0.78)
    kept = [seconds for seconds in found.seconds if seconds is not None]
    assert found.of_those_that_do == kept
    assert all(re.fullmatch(r"(.+ \([2-3] of 3\)|[01] of 3)", cell) for row in table.rows for cell in row[2:])


def test_a_median_counts_those_that_never_get_there():
    assert costs.Reached(0.5, (None, 3.0, 1.0)).median == 3.0
    assert costs.Reached(0.5, (None, None, 1.0)).median is None and costs.Reached(0.5, (None, 2.0)).median is None
    assert costs.Reached(0.5, (4.0, 2.0)).median == 3.0


def test_two_approaches_agree_less_than_two_seeds_of_one(study):
    made = study(better, presets="corrected", seeds="0,1,2")
    found = {each.names: each for each in designs.agreements(made, "corrected")}
    assert found["linear_probe", "linear_probe"].pairs == 3 and found["linear_probe", "full_finetune"].pairs == 6
    a, b = made.runs("linear_probe")[0], made.runs("full_finetune")[1]
    share = (a.predictions["test_logits"].argmax(1) == b.predictions["test_logits"].argmax(1)).mean()
    assert found["linear_probe", "full_finetune"].least <= share <= found["linear_probe", "full_finetune"].greatest
    assert designs.agreements(study(better, seeds="0"), "corrected") == []
    assert "ess often than two seeds of either do" in findings.agreement(made).markdown


# --- ladder, controls, unequal seeds -------------------------------------------------------------------------------


def climbing(approach, kind, value):
    at = {"corrected": 0.5, "schedule": 0.5, "augmentation": 0.7, "tuned": 0.8}
    return 0.3 if kind == "control" else at.get(value, 0.6)


@pytest.fixture
def whole(study):
    return study(climbing, presets="corrected,tuned", seeds="0,1", probe_seeds="0,1,2,3", ladder=True, controls=True,
                 weights="embedded", budgets="10")  # fmt: skip


def test_the_ladder_ends_in_tuned_and_names_what_helps(whole):
    for approach in whole.approaches:
        rungs = designs.ladder(whole, approach)
        assert rungs[0][1] == whole.runs(approach, "corrected") and rungs[-1][1] == whole.runs(approach, "tuned")
        assert len({name for name, *_ in rungs}) == len(rungs) > 2 and rungs[0][2] is None and rungs[-1][0]
        first_step = rungs[1][2]
        assert first_step.mean == pytest.approx(measures.compare(rungs[0][1], rungs[1][1]).accuracy.mean)
    text = findings.tuned(whole).markdown
    assert text.count("rom *corrected* to *tuned*") == 2 and "it clearly gains from" in text
    rows = effects.ladder(whole).rows
    assert [row[2] for row in rows if row[0] == "linear probe"] == ["4"] * (len(designs.ladder(whole, "linear_probe")))
    assert rows[0][4:6] == ("", "") and all(row[6] for row in rows), "each rung has its time"


def test_a_single_measurement_that_was_disturbed_is_owned_up_to(study):
    runs = study(better, seeds="0,1").runs("linear_probe")
    for share, first in ((None, True), (0.04, True), (0.146, False), (0.146, True)):
        infos = [run.info["provenance"] | {"others_share": 0.0, "finished": f"2026-01-0{n}"}
                 for n, run in enumerate(runs, 1)]  # fmt: skip
        infos[not first]["others_share"] = share
        said = words.disturbed(with_info(runs, provenance=infos)).replace(numbers.NBSP, " ")
        assert bool(said) == (first and share == 0.146)
    assert "those of the linear probe with *corrected* were computed while other processes took 14.6 %" in said


def test_after_a_single_epoch_nothing_is_said_of_peaks(study):
    (run,) = study(better, seeds="0").runs("linear_probe")
    (once,) = with_info((run,), config=[run.info["config"] | {"epochs": 1}])
    once.__dict__["epochs"] = run.epochs.head(1)
    assert words.training((once,)).markdown.startswith("After its only epoch, validation accuracy (seed 0) is ")
    assert "1 epoch of batches of" in words.settings(once).markdown and " makes " in words.settings(once).markdown


def test_operations_count_what_a_run_starts_from_and_never_guess(study):
    made = study(better, presets="published,corrected,tuned", seeds="0")
    tuned, corrected = (made.runs("full_finetune", name)[0] for name in ("tuned", "corrected"))
    forward, backward = (tuned.info[f"{name}_flops"] for name in ("forward", "backward"))
    epochs = tuned.info["config"]["epochs"]
    assert tuned.info["config"]["start"] == "probe"
    assert costs.operations(tuned) == epochs * (forward + backward) + forward
    assert costs.operations(tuned, cached=False) == epochs * (2 * forward + backward)
    assert costs.operations(corrected) == corrected.info["config"]["epochs"] * (forward + backward)
    published = made.runs("linear_probe", "published")
    assert costs.operations(published[0]) is None and costs.operations_ratios(published, (corrected,))[0] is None


def test_the_ladder_says_how_busy_the_machine_was_while_its_times_were_taken(whole, monkeypatch):
    assert not any("processes" in note for note in effects.ladder(whole).notes), "nothing was measured"
    monkeypatch.setattr(costs, "others_share", lambda runs: (0.0, 0.49))
    (note,) = [note for note in effects.ladder(whole).notes if "processes" in note]
    assert note.startswith("While these trained, other processes took 0.0") and "49.0" in note


def test_controls_stand_beside_the_preset_they_are_one_of(whole):
    controls = effects.controls(whole)
    assert [row[0] for row in controls.rows] == [
        "linear probe, random trunk", "full fine-tuning, random trunk", "full fine-tuning, last block"
    ]  # fmt: skip
    assert controls.caption.startswith("Controls: the preset corrected with")
    assert all(pair.accuracy.mean < 0 and pair.a[0].preset == "corrected" for _, pair in designs.controls(whole))
    trained = [f"{pair.b[0].info['trained_parameters']:,}" for _, pair in designs.controls(whole)]
    assert [row[controls.header.index("trained parameters")] for row in controls.rows] == trained
    assert findings.worthwhile(whole) == [], "all of them are worse"


def test_approaches_with_more_seeds_are_paired_on_those_they_share(whole):
    (pair,) = measures.comparisons(whole.of())
    assert [run.seed for run in pair.a] == [run.seed for run in pair.b] == [0, 1] and pair.seeds_won[0] <= 2
    assert measures.accuracy(whole.runs("linear_probe")).n == 4
    assert "of 2 seeds" in findings.differences(whole).markdown
    first, shared = claims.abstract(whole).markdown, measures.accuracy(measures.comparisons(whole.best)[0].a)
    assert "on the 2 seeds that all approaches have" in first and numbers.rate(shared) in first
    assert "4 seeds of the linear probe and 2 seeds of full fine-tuning" in claims.abstract(whole).markdown
    assert effects.budgets(whole).rows[0][1] == "4 and 2"
    assert "1 or 3 degrees of freedom" in findings.intervals(whole).markdown


def test_what_was_not_run_is_not_spoken_of(study):
    least = study(better, seeds="0,1")
    assert effects.ladder(least) is effects.controls(least) is None
    assert findings.tuned(least) is None and findings.searches(least, {"linear_probe": {"trials": []}}) is None


def test_searches_that_were_made_alike_are_told_in_one_sentence(study):
    made = study(better, presets="corrected,tuned")
    conditions = {
        "per_class": 500,
        "validation_images": 1000,
        "image_size": 128,
        "weights": made.weights_sha,
        "seed": 0,
    }
    trials, winner = [{"epochs": 5, "trunk_rate": 1.0}, *[{"epochs": 10, "trunk_rate": 1.0}] * 7], {"epochs": 10}
    search, few = ({"trials": trials, "winner": winner | {"trunk_rate": 1.0}, "conditions": conditions | more}
                   for more in ({}, {"per_class": 50}))  # fmt: skip
    told = findings.searches(made, {"linear_probe": search, "full_finetune": search, "linear_probe_few": few}).markdown
    assert (
        "The settings of the linear probe and full fine-tuning were searched in 8 trials each with 500 labels per "
        "class, judged on 1,000 validation images at 128 pixels." in told
    )
    assert told.count("in 8 trials") == 2 and told.count("one standard error") == 1
    assert "other weights" not in told and "used seed 0, which is among those compared" in told
    largest = "; ".join(f"epochs of {of} labels)" for of in (
        "the linear probe (500", "the linear probe (50", "full fine-tuning (500"
    ))  # fmt: skip
    assert f"the largest won for {largest}: values beyond may be better." in told and "smallest" not in told
    trials = [row | {"learning_rate": rate} for row, rate in zip(trials, [1e-3, *[1e-2] * 7], strict=True)]
    least = search | {"trials": trials, "winner": {"epochs": 5, "learning_rate": 1e-3}}
    told = findings.searches(made, {"full_finetune": least}).markdown
    assert "the smallest won for learning rate of full fine-tuning (500 labels): values beyond" in told


# --- the three claims and the limits -------------------------------------------------------------------------------


def test_the_three_claims_are_answered_in_numbers(study):
    made = study(climbing, presets="published,corrected,tuned", seeds="0,1", budgets="10,50")
    for part in (claims.claims(made, PUBLISHED), claims.verdict(made, PUBLISHED)):
        text = part.markdown
        assert "[@pokharel]" in text and all(f"{number}. " in text for number in (1, 2, 3))
        assert (
            " as long to train as the linear probe with " in text
            and "Labels: " in text
            and "its cost speaks for it" in text
        )
    assert "In the main comparison, " in claims.verdict(made, PUBLISHED).markdown
    first = claims.claims(made, PUBLISHED).markdown
    assert all(f"*{preset}*" in first for preset in made.presets) and "of 2 seeds" in first and "is done after" in first
    assert "counted in operations" in first.lower() and "taken as unpaired" in first
    gap = designs.published_difference(PUBLISHED, "linear_probe", "full_finetune")
    assert numbers.points(gap) in first and "no difference is shown" in first
    assert claims.claims(study(better, seeds="0"), PUBLISHED) is None


def test_limits_are_those_of_the_runs(study):
    made = study(better, seeds="0", per_class=50, image_size=64, data_name="Flowers (JPEG)")
    text = claims.limits(made, ["known"], {None: "their card"}).markdown
    for said in ("compressed anew", "64 × 64", "224 × 224", "50 labelled images per class", "the labelled images",
                 "Known.", "Their card.", "400 test images", "of those training images 250 are used"):  # fmt: skip
        assert said.lower() in text.lower(), said
    whole = claims.limits(study(better, seeds="0", image_size=224)).markdown
    assert "compressed" not in whole and "224 × 224" not in whole and "labelled images, which" not in whole


def test_seeds_that_are_level_are_not_won():
    pair = SimpleNamespace(seeds_won=(2, 1), a=(1, 2, 3, 4))
    assert pairs.won(pair) == "ahead with 2 and level with 1 of 4 seeds"
    assert pairs.won(SimpleNamespace(seeds_won=(3, 0), a=(1, 2, 3))) == "ahead with 3 of 3 seeds"
    assert not pairs.won(SimpleNamespace(seeds_won=(1, 0), a=(1,)))
