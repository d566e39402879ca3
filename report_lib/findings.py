"""Records -> sentences: what recipes, defects and labels change, what goes wrong, and the limits of it all.

Imports no torch.
"""

import numpy as np

from report_lib import stats
from report_lib.document import Prose, text
from report_lib.formats import decimals, percent, reach, signed
from report_lib.measures import (
    DEFECTS,
    NAMES,
    Study,
    agreement_of,
    budget_points,
    calibration_of,
    classes_of,
    defect_effects,
    errors_of,
    filter_change,
    right_of,
    the,
)
from report_lib.plan import Evidence
from report_lib.records import Run


def _one_seed(n: int) -> str:
    """The caveat that intervals of a single seed need."""
    return " With one seed, these intervals cover the draw of test images, not that of seeds." if n == 1 else ""


def recipes(evidence: Evidence) -> Prose:
    """What tuning brings over the corrected recipe, paired on the same test images."""
    if not {"tuned", "corrected"} <= set(evidence.recipes):
        return Prose("This study has not been run with both recipes, corrected and tuned (parameter `recipes`).")
    said = []
    for approach in NAMES:
        runs = evidence.runs[approach]
        change = stats.paired_difference(right_of(runs["corrected"]), right_of(runs["tuned"]))
        between, digits = reach(change.low, change.high)
        points = f"{signed(100 * change.mean, digits)} points, 95 % interval {between}"
        if not change.clear:
            verdict = f"tuning cannot be said to change the test accuracy of {NAMES[approach]}"
        elif change.mean > 0:
            verdict = f"tuning raises the test accuracy of {NAMES[approach]}"
        else:
            verdict = f"tuning lowers the test accuracy of {NAMES[approach]}"
        said.append(f"{verdict} ({points})")
    joined = "; ".join(said)
    return Prose(f"{joined[0].upper()}{joined[1:]}.{_one_seed(len(runs['tuned']))}")


def search(rows: dict[str, list[dict]], winners: dict[str, dict]) -> Prose:
    """How many trials the tuned settings won against, over which ranges, judged on validation images."""
    said = []
    for approach, trials in rows.items():
        if not trials:
            said.append(f"for {NAMES[approach]} no search is recorded, and the settings are a guess")
            continue
        names = list(winners[approach])
        ranges = []
        for name in names:
            values = sorted({row[name] for row in trials if name in row}, key=str)
            if len(values) > 1:
                ranges.append(f"{name.replace('_', ' ')} {', '.join(map(str, values))}")
        best = max(row["validation_accuracy"] for row in trials)
        won = ", ".join(f"{name.replace('_', ' ')} {winners[approach][name]}" for name in names)
        said.append(
            f"for {NAMES[approach]} {len(trials)} trials ({'; '.join(ranges)}), won by {won} with "
            f"{percent(best)} of the validation images"
        )
    return Prose(
        f"How the settings of tuned were chosen: {'. And '.join(said)}. No test image takes part in a search; it "
        "was made once, under the conditions that report/tuning records, and not for these data anew."
    )


def defects(evidence: Evidence) -> Prose:
    """Which published defects change what is reported, and which cannot be said to."""
    effects = defect_effects(evidence)
    if not effects:
        return Prose("")
    clear = [one for one in effects if one["effect_is_clear"]]
    named = {id(one): f"{DEFECTS[one['defect']]} ({NAMES[one['approach']]})" for one in effects}
    if not clear:
        return Prose("No single defect can be said to change the reported accuracy.")
    largest = max(clear, key=lambda one: abs(one["effect"]))
    up, down = ([named[id(one)] for one in clear if (one["effect"] > 0) == better] for better in (True, False))
    said = f"Of {len(effects)} defects, {len(clear)} change{'s' * (len(clear) == 1)} the reported accuracy clearly. "
    if up:
        said += f"It is raised by: {'; '.join(up)}. "
    if down:
        said += f"It is lowered by: {'; '.join(down)}. "
    said = f"[Table](#tab-defects) switches them on one at a time. {said}"
    effect = signed(100 * largest["effect"], reach(*largest["effect_ci95"])[1])
    return Prose(
        said + f"The largest effect, {effect} points, is that of {named[id(largest)]}. "
        "An accuracy of the best *test* epoch is no estimate for new images even where its effect is small."
        + _one_seed(effects[0]["n"])
    )


def budgets(evidence: Evidence) -> Prose:
    """Which approach is ahead with how many labels, and where they cross."""
    leads = []
    for (labels, probe), (_, tuned) in zip(*budget_points(evidence).values(), strict=True):
        change = stats.paired_difference(right_of(probe), right_of(tuned))
        leads.append((labels, 0 if not change.clear else 1 if change.mean > 0 else -1))
    if len(leads) == 1:
        return Prose("")
    who = {1: "full fine-tuning is ahead", -1: "the linear probe is ahead", 0: "neither can be said to be ahead"}
    said = [f"with {labels:,.0f} labels a class {who[lead]}" for labels, lead in leads]
    clear = [(labels, lead) for labels, lead in leads if lead]
    crossings = [(a[0], b[0]) for a, b in zip(clear, clear[1:], strict=False) if a[1] != b[1]]
    if crossings:
        end = " ".join(f"They cross between {a:,.0f} and {b:,.0f} labels a class." for a, b in crossings)
    elif clear:
        end = "Within this range no crossing is shown: nowhere is the other one clearly ahead."
    else:
        end = "Within this range neither is clearly ahead anywhere."
    joined = "; ".join(said)
    return Prose(f"[Figure](#fig-budgets) and [Table](#tab-budgets) show it: {joined}. {end}{_one_seed(len(probe))}")


def classes(study: Study) -> Prose:
    """Where fine-tuning helps most, and where it does not."""
    names = study["linear_probe"][0].classes
    probe, tuned = (classes_of(runs) for runs in study.values())
    gain = [b.mean - a.mean for a, b in zip(probe, tuned, strict=True)]
    most, least = int(np.argmax(gain)), int(np.argmin(gain))
    sizes = np.bincount(study["linear_probe"][0].predictions()["test_labels"], minlength=len(names))
    said = (
        f"In these runs fine-tuning gains most on {text(names[most])} ({signed(100 * gain[most], 1)} points) and least "
        f"on {text(names[least])} ({signed(100 * gain[least], 1)} points)."
    )
    if sizes.max() > 2 * sizes.min():
        said += (
            f" The classes are not balanced: {text(names[int(sizes.argmax())])} has {sizes.max():,} test images, "
            f"{text(names[int(sizes.argmin())])} {sizes.min():,}; the mean over classes is "
            f"{percent(float(np.mean([e.mean for e in probe])))} for the linear probe and "
            f"{percent(float(np.mean([e.mean for e in tuned])))} for full fine-tuning."
        )
    return Prose(said)


def calibration(study: Study) -> Prose:
    """How sure the networks are against how right they are, before and after temperature scaling."""
    said = []
    for runs in study.values():
        if runs[0].info["selected_on"] == "test":
            return Prose("These runs held out no validation images, so no temperature can be fitted honestly.")
        one = calibration_of(runs)
        t, nats = one["temperature"], decimals(errors_of(runs)[1])
        sure = "too sure of itself" if t > 1.02 else "too modest" if t < 0.98 else "fair"
        said.append(
            f"{the(runs)} is {sure}: a temperature of {t:.2f}, fitted on validation images, takes its expected "
            f"calibration error from {percent(one['ece'])} to {percent(one['ece_scaled'])} and its loss from "
            f"{one['test_loss']:.{nats}f} to {one['test_loss_scaled']:.{nats}f} nats"
        )
    return Prose(
        "[Figure](#fig-reliability) compares confidence, the largest softmax probability, with accuracy [@guo2017]. On "
        f"the test images {'; '.join(said)}."
    )


def overlap(study: Study) -> Prose:
    """How many test images both, one or neither gets right."""
    counts = agreement_of(study)[0]
    seed, images = counts.pop("seed"), sum(counts.values())
    return Prose(
        f"With seed {seed}, both are right on {percent(counts['both'] / images)} of the test images and neither on "
        f"{percent(counts['neither'] / images)}. Who always knew which of the two to trust would be right on "
        f"{percent(1 - counts['neither'] / images)}."
    )


def filters(run: Run) -> Prose:
    """How far fine-tuning has moved the first layer."""
    change = filter_change(run)
    size = "hardly touches" if change < 0.05 else "reshapes in part" if change < 0.5 else "rebuilds"
    return Prose(
        f"Fine-tuning {size} the first layer: what it adds has {percent(change)} of the pretrained weights' length."
    )


def limits(study: Study) -> Prose:
    """What is published about the test set, where it is CIFAR-10's."""
    run = study["linear_probe"][0]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    if sorted(run.classes) != names or run.info["data"]["test"] != 10_000:
        return Prose(
            "Nothing is known here of wrong labels in this test set, nor of test images that resemble training images; "
            "both would bend every figure above, for both approaches."
        )
    return Prose(
        "A majority of annotators finds 54 of CIFAR-10's 10,000 test labels wrong [@northcutt2021], so a difference of "
        "half a point says little about either approach. 3.25 % of its test images have a near-duplicate among the "
        "training images [@barz2020], which favours whatever learns by heart. On CIFAR-10.1, drawn anew in the same "
        "way, published classifiers lose 3 to 15 points [@recht2019]: what is said here holds for this test set."
    )
