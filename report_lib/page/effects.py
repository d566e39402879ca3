"""What a study runs beside its presets -> tables: defects, label budgets, the ladder to `tuned`, controls; and how much
networks agree, and when they reach the same accuracy."""

from collections.abc import Sequence

from report_lib.config import APPROACHES, FEW_LABELS
from report_lib.evidence import Comparison, compare, costs, designs, measures
from report_lib.evidence.measures import the
from report_lib.evidence.stats import Difference
from report_lib.page.numbers import DIGITS, factor, fixed, in_seconds, listed, methods, percent
from report_lib.page.parts import Table, table
from report_lib.page.tables import INTERVAL, accuracies, between, change_of, name_of, training_time
from report_lib.page.words import company
from report_lib.runs import Study


def defects(study: Study) -> Table | None:
    """Each published defect, switched on alone in `corrected`, and what it does to the reported accuracy."""
    rows, effects = [], designs.defect_effects(study)
    for each in effects:
        head, selects = "effect, points", each["defect"] == "select_on_test"
        change = change_of(each["effect"], head)
        if each["same_images_right"]:
            change = {head: "0", INTERVAL: "the same epochs" if selects else "the same images right"}
        elif selects:
            change[INTERVAL] = f"range {change[INTERVAL]}"
        cells = {"approach": name_of(each["runs"]), "defect": each["label"], "accuracy, %": accuracies(each["runs"])}
        rows.append(cells | change)
    if not rows:
        return None
    n = listed((str(len(each["runs"])) for each in effects), "or")
    return table(
        "tab-defects",
        f"What each defect of the published listings changes, switched on in the preset corrected, n = {n}: reported "
        "test accuracy and its paired difference.",
        rows,
        [f"95 % intervals: {methods(_drawn(effects))}. Where the test images select the epoch, the interval is the "
         "range over seeds of what the best test epoch adds within its run."],
    )  # fmt: skip


def _drawn(effects: Sequence[dict]) -> list[Difference]:
    """Those effects that have an interval."""
    return [each["effect"] for each in effects if each["defect"] != "select_on_test"]


def budgets(study: Study) -> Table | None:
    """Accuracy of the approaches by number of labels, their paired differences, and at which price; None without
    budgets."""
    rows, differences, several = [], [], len(study.approaches) > 2
    for labels, runs in measures.budget_curve(study):
        row = {"labels per class": f"{labels:,.0f}", "n": listed(str(len(r)) for r in runs.values())}
        row |= {f"{name_of(r)}, %": accuracies(r) for r in runs.values()}
        for pair in (compare(runs[study.approaches[0]], other) for other in list(runs.values())[1:]):
            differences.append(pair.accuracy)
            cells = change_of(pair.accuracy) | {"times as long": _ratio(pair)}
            who = f"{name_of(pair.b)}: " * several
            row |= {who + head: cell for head, cell in cells.items()}
        rows.append(row)
    if not rows:
        return None
    config = study.best[study.approaches[0]][0].info["config"]
    return table(
        "tab-budgets",
        f"Test accuracy by labelled images per class, {percent(config['val_fraction'], 0)} of which validate; preset "
        f"{config['preset']}, mean ± standard deviation of n seeds.",
        rows,
        ["With few labels the batch is smaller, so that an epoch has more than a step or two"
         + (f"; up to {FEW_LABELS} per class, the settings of tuned are those that were searched with few."
            if config["preset"] == "tuned" else "."),
         f"Differences to {the(study.best[study.approaches[0]])} are paired, over the seeds that both have; 95 % "
         f"intervals: {methods(differences) if differences else 'none'}. Times as long: the ratio of training times, "
         "with its range over seeds."],
        left=0,
    )  # fmt: skip


def _ratio(pair: Comparison) -> str:
    """How many times as long b trains as a, with its range; blank across devices."""
    if not pair.times:
        return ""
    mean, low, high = map(factor, pair.times)
    return mean if low == high else f"{mean} ({low} to {high})"


# --- from corrected to tuned, controls, and the same answer ----------------------------------------------------


def ladder(study: Study) -> Table | None:
    """Test accuracy from `corrected` to `tuned`, a step at a time; None where no such steps were run."""
    rungs = [rung for approach in study.approaches for rung in designs.ladder(study, approach)]
    if not rungs:
        return None
    rows = [
        {
            "approach": name_of(runs),
            "rung": f"+ {name}" if change else name,
            "n": str(len(runs)),
            "test accuracy, %": accuracies(runs),
        }
        | change_of(change, "change, points")
        | {"training, s": training_time(runs)}
        for name, runs, change in rungs
    ]
    beside = company(tuple(run for _, runs, _ in rungs for run in runs), "While these trained,")
    return table(
        "tab-ladder",
        "From corrected to tuned, one group of settings at a time, each rung with all of those above it: test "
        "accuracy, mean ± standard deviation of n seeds, and its paired difference to the rung before.",
        rows,
        [f"95 % intervals: {methods(change for *_, change in rungs if change)}.", *([f"{beside}."] if beside else [])],
    )


def controls(study: Study) -> Table | None:
    """The controls beside the preset that each is one of; None where none were run."""
    found = designs.controls(study)
    if not found:
        return None
    rows = [
        {
            "control": f"{name_of(pair.b)}, {name}",
            "test accuracy, %": accuracies(pair.b),
        }
        | change_of(pair.accuracy)
        | {"n": str(len(pair.b)), "trained parameters": f"{pair.b[0].info['trained_parameters']:,}"}
        for name, pair in found
    ]
    return table(
        "tab-controls",
        f"Controls: the preset {found[0][1].a[0].preset} with one thing changed, mean ± standard deviation of n seeds, "
        "and the paired difference to that preset.",
        rows,
        [f"95 % intervals: {methods(pair.accuracy for _, pair in found)}."],
        left=1,
    )


def agreement(study: Study) -> Table | None:
    """How often two seeds of one approach, and two approaches, give the same class; None for a single seed."""
    every = {preset: {each.names: each for each in designs.agreements(study, preset)} for preset in study.presets}
    rows = []
    for a, b in dict.fromkeys(names for found in every.values() for names in found):
        first, second = APPROACHES[a].the, APPROACHES[b].the
        row = {"pair of networks": f"two seeds of {first}" if a == b else f"{first} and {second}"}
        for preset, found in every.items():
            share = found.get((a, b))
            row[preset] = f"{fixed(100 * share.mean, DIGITS)} ({between(share.least, share.greatest)})" if share else ""
        rows.append(row)
    return table(
        "tab-agreement",
        "Share of the test images to which two networks give the same class, in %: mean over all pairs of different "
        "seeds, and their range.",
        rows,
        left=1,
    )


def same_answer(study: Study) -> Table | None:
    """Training time until validation accuracy is what `corrected` selects; None without that preset."""
    rows = []
    for runs, reached in costs.time_to_accuracy(study):
        row = {"approach": name_of(runs), "preset": runs[0].preset}
        for approach, each in reached.items():
            share = f"{len(each.of_those_that_do)} of {len(each.seconds)}"
            head = f"to {percent(each.target)}, as {APPROACHES[approach].the}, s"
            row[head] = f"{in_seconds([each.median])} ({share})" if each.median is not None else share
        rows.append(row)
    return table(
        "tab-same-answer",
        "Training time, features and start included, until validation accuracy is what corrected selects: median over "
        "the seeds, and how many reach it.",
        rows,
        ["A seed that does not reach the mean of corrected counts as later than any other, and where that is the "
         "median no time stands. Presets that the test images select have no such accuracy."],
    )  # fmt: skip
