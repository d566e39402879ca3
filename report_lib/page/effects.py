"""What a study runs beside its presets -> tables: defects, label budgets, the ladder to `tuned`, controls; and how much
networks agree, and when they reach the same accuracy."""

from collections.abc import Sequence

from report_lib.config import APPROACHES, FEW_LABELS
from report_lib.evidence import Comparison, compare, costs, designs, measures
from report_lib.evidence.measures import the
from report_lib.evidence.stats import Difference
from report_lib.page.numbers import DIGITS, factor, fixed, in_seconds, listed, methods, percent
from report_lib.page.parts import Table
from report_lib.page.tables import accuracies, between, change_of, name_of, training_time
from report_lib.page.words import company
from report_lib.runs import Study


def defects(study: Study) -> Table | None:
    """Each published defect, switched on alone in `corrected`, and what it does to the reported accuracy."""
    rows, effects = [], designs.defect_effects(study)
    for each in effects:
        change = change_of(each["effect"])
        if each["same_images_right"]:
            change = ("0", "the same epochs" if each["defect"] == "select_on_test" else "the same images right")
        elif each["defect"] == "select_on_test":
            change = (change[0], f"range {change[1]}")
        rows.append((name_of(each["runs"]), each["label"], accuracies(each["runs"]), *change))
    if not rows:
        return None
    n = listed((str(len(each["runs"])) for each in effects), "or")
    return Table(
        "tab-defects",
        f"What each defect of the published listings changes, switched on in the preset corrected, n = {n}: reported "
        "test accuracy and its paired difference.",
        ("approach", "defect", "accuracy, %", "effect, points", "95 % interval"),
        tuple(rows),
        "llrrr",
        (f"95 % intervals: {methods(_drawn(effects))}. Where the test images select the epoch, the interval is the "
         "range over seeds of what the best test epoch adds within its run.",),
    )  # fmt: skip


def _drawn(effects: Sequence[dict]) -> list[Difference]:
    """Those effects that have an interval."""
    return [each["effect"] for each in effects if each["defect"] != "select_on_test"]


def budgets(study: Study) -> Table | None:
    """Accuracy of the approaches by number of labels, their paired differences, and at which price; None without
    budgets."""
    rows, differences = [], []
    for labels, runs in measures.budget_curve(study):
        pairs = [compare(runs[study.approaches[0]], other) for other in list(runs.values())[1:]]
        differences += [pair.accuracy for pair in pairs]
        rows.append((f"{labels:,.0f}", listed(str(len(r)) for r in runs.values()),
                     *map(accuracies, runs.values()),
                     *(cell for pair in pairs for cell in (*change_of(pair.accuracy), _ratio(pair)))))  # fmt: skip
    if not rows:
        return None
    config, names = study.best[study.approaches[0]][0].info["config"], [APPROACHES[a].name for a in study.approaches]
    several = len(names) > 2
    heads = [f"{name}: {what}" if several else what for name in names[1:]
             for what in ("difference, points", "95 % interval", "times as long")]  # fmt: skip
    return Table(
        "tab-budgets",
        f"Test accuracy by labelled images per class, {percent(config['val_fraction'], 0)} of which validate; preset "
        f"{config['preset']}, mean ± standard deviation of n seeds.",
        ("labels per class", "n", *(f"{name}, %" for name in names), *heads),
        tuple(rows),
        "r" * (2 + len(names) + len(heads)),
        ("With few labels the batch is smaller, so that an epoch has more than a step or two"
         + (f"; up to {FEW_LABELS} per class, the settings of tuned are those that were searched with few."
            if config["preset"] == "tuned" else "."),
         f"Differences to {the(study.best[study.approaches[0]])} are paired, over the seeds that both have; 95 % "
         f"intervals: {methods(differences) if differences else 'none'}. Times as long: the ratio of training times, "
         "with its range over seeds."),
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
        (
            name_of(runs),
            f"+ {name}" if change else name,
            str(len(runs)),
            accuracies(runs),
            *change_of(change),
            training_time(runs),
        )
        for name, runs, change in rungs
    ]
    return Table(
        "tab-ladder",
        "From corrected to tuned, one group of settings at a time, each rung with all of those above it: test "
        "accuracy, mean ± standard deviation of n seeds, and its paired difference to the rung before.",
        ("approach", "rung", "n", "test accuracy, %", "change, points", "95 % interval", "training, s"),
        tuple(rows),
        "llrrrrr",
        (f"95 % intervals: {methods(change for *_, change in rungs if change)}.",
         *([f"{told}."] if (told := company(tuple(run for _, runs, _ in rungs for run in runs),
                                            "While these trained,")) else [])),
    )  # fmt: skip


def controls(study: Study) -> Table | None:
    """The controls beside the preset that each is one of; None where none were run."""
    found = designs.controls(study)
    if not found:
        return None
    rows = [
        (name_of(pair.b), name, pair.a[0].preset, str(len(pair.b)), accuracies(pair.b), *change_of(pair.accuracy))
        for name, pair in found
    ]
    return Table(
        "tab-controls",
        "Controls: the preset with one thing changed, mean ± standard deviation of n seeds, and the paired "
        "difference to that preset.",
        ("approach", "control", "preset", "n", "test accuracy, %", "difference, points", "95 % interval"),
        tuple(rows),
        "lllrrrr",
        (f"95 % intervals: {methods(pair.accuracy for _, pair in found)}.",),
    )


def agreement(study: Study) -> Table | None:
    """How often two seeds of one approach, and two approaches, give the same class; None for a single seed."""
    every = {preset: {each.names: each for each in designs.agreements(study, preset)} for preset in study.presets}
    rows = []
    for a, b in dict.fromkeys(names for found in every.values() for names in found):
        who = f"two seeds of {APPROACHES[a].the}" if a == b else f"{APPROACHES[a].the} and {APPROACHES[b].the}"
        shares = [every[preset].get((a, b)) for preset in study.presets]
        rows.append((who, *(f"{fixed(100 * s.mean, DIGITS)} ({between(s.least, s.greatest)})" if s else ""
                            for s in shares)))  # fmt: skip
    if not rows:
        return None
    return Table(
        "tab-agreement",
        "Share of the test images to which two networks give the same class, in %: mean over all pairs of different "
        "seeds, and their range.",
        ("pair of networks", *study.presets),
        tuple(rows),
        "l" + "r" * len(study.presets),
    )


def same_answer(study: Study) -> Table | None:
    """Training time until validation accuracy is what `corrected` selects; None without that preset."""
    found = costs.time_to_accuracy(study)
    if not found:
        return None
    targets = {approach: reached.target for approach, reached in found[0][1].items()}
    rows = []
    for runs, reached in found:
        cells = []
        for each in reached.values():
            share = f"{len(each.of_those_that_do)} of {len(each.seconds)}"
            cells.append(f"{in_seconds([each.median])} ({share})" if each.median is not None else share)
        rows.append((name_of(runs), runs[0].preset, *cells))
    return Table(
        "tab-same-answer",
        "Training time, features and start included, until validation accuracy is what corrected selects: median over "
        "the seeds, and how many reach it.",
        ("approach", "preset", *(f"to {percent(share)}, as {APPROACHES[a].the}, s" for a, share in targets.items())),
        tuple(rows),
        "ll" + "r" * len(targets),
        ("What corrected selects is its mean over seeds. A seed that does not reach it counts as later than any other; "
         "where the median is one of these, no time stands. The best epoch is kept, so what is reached is not lost. "
         "Presets that the test images select have no such accuracy.",),
    )  # fmt: skip
