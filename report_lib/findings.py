"""Records -> sentences: what recipes, defects and labels change, what goes wrong, and the limits of it all.

Imports no torch.
"""

import numpy as np

from report_lib import stats
from report_lib.document import Prose, text
from report_lib.formats import decimals, fixed, percent, reach, signed
from report_lib.measures import (
    EFFECTS,
    NAMES,
    Study,
    agreement_of,
    budget_points,
    calibration_of,
    classes_of,
    defect_effects,
    errors_of,
    filter_change,
    is_cifar10,
    recipe_effect,
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
        change = recipe_effect(evidence, approach)
        between, digits = reach(change.low, change.high)
        points = f"{signed(100 * change.mean, digits)} points, 95 % interval {between}"
        if not change.clear:
            verdict = f"tuning cannot be said to change the test accuracy of {the(runs['tuned'])}"
        elif change.mean > 0:
            verdict = f"tuning raises the test accuracy of {the(runs['tuned'])}"
        else:
            verdict = f"tuning lowers the test accuracy of {the(runs['tuned'])}"
        said.append(f"{verdict} ({points})")
    joined = "; ".join(said)
    return Prose(f"{joined[0].upper()}{joined[1:]}.{_one_seed(len(runs['tuned']))}")


def search(rows: dict[str, list[dict]], winners: dict[str, dict], made: dict[str, dict], study: Study) -> Prose:
    """How many trials the tuned settings won against, over which ranges, judged on which validation images.

    `rows` has the trials of each approach, `made` the conditions they ran under, `study` runs of the recipe tuned.
    """
    said = []
    for approach, trials in rows.items():
        if not trials:
            said.append(f"for {the(study[approach])} no search is recorded, and the settings are a guess")
            continue
        names = list(winners[approach])
        ranges, combinations = [], 1
        for name in names:
            values = sorted({row[name] for row in trials if name in row}, key=str)
            combinations *= len(values)
            if len(values) > 1:
                ranges.append(f"{name.replace('_', ' ')} {', '.join(map(str, values))}")
        best = max(row["validation_accuracy"] for row in trials)
        held_out = made[approach]["validation_images"]
        error = (best * (1 - best) / held_out) ** 0.5
        near = sum(best - error <= row["validation_accuracy"] for row in trials) - 1
        won = ", ".join(f"{name.replace('_', ' ')} {winners[approach][name]}" for name in names)
        grid = "all" if len(trials) == combinations else "some"
        per_class = made[approach]["per_class"]
        images = f"{per_class:,} labelled images of each class" if per_class else "all labelled images"
        said.append(
            f"for {the(study[approach])}, {len(trials)} trials ({grid} combinations of {'; '.join(ranges)}), each "
            f"with one seed at {made[approach]['image_size']} pixels on {images}, won by {won} with "
            f"{percent(best, decimals(100 * error))} of {held_out:,} validation images"
            + (f"; {near} more {'is' if near == 1 else 'are'} within one standard error of it" if near else "")
        )
    others = []
    for approach, runs in study.items():
        recipe = runs[0].info["recipe"]
        found = winners[approach].get("learning_rate", recipe["learning_rate"])
        if recipe["recipe"] == "tuned" and recipe["learning_rate"] != found:
            others.append(the(runs))
    instead = ""
    if others:
        instead = f" In this study the learning rate of {' and of '.join(others)} was given instead of found."
    return Prose(
        f"How the settings of tuned were chosen: {'. And '.join(said)}. The rest of the recipe, such as warm-up and "
        "the size of the shifts, was set by hand. No test image takes part in a search; it was made once, under these "
        f"conditions, and not for these data anew.{instead}"
    )


def defects(evidence: Evidence) -> Prose:
    """Which published defects change what is reported, and which cannot be said to."""
    effects = [one for one in defect_effects(evidence) if one["defect"] != "all"]
    if not effects:
        return Prose("")
    clear = [one for one in effects if one["effect_is_clear"]]
    named = {id(one): f"“{EFFECTS[one['defect']]}” ({NAMES[one['approach']]})" for one in effects}
    before = "[Table](#tab-defects) switches them on one at a time."
    if not clear:
        return Prose(f"{before} No single defect can be said to change the reported accuracy.")
    largest = max(clear, key=lambda one: abs(one["effect"]))
    up, down = ([named[id(one)] for one in clear if (one["effect"] > 0) == better] for better in (True, False))
    said = f"Of {len(effects)} effects, {len(clear)} {'is' if len(clear) == 1 else 'are'} clear. "
    if up:
        said += f"These raise the reported accuracy: {'; '.join(up)}. "
    if down:
        said += f"These lower it: {'; '.join(down)}. "
    effect = signed(100 * largest["effect"], reach(*largest["effect_ci95"])[1])
    flatters = any(one["defect"] == "select_on_test" and one["effect"] > 0 for one in clear)
    return Prose(
        f"{before} {said}The largest effect, {effect} points, is that of {named[id(largest)]}. "
        + ("The best *test* epoch can never look worse than the one that validation selects; it is no estimate for new "
           "images. " if flatters else "")
        + f"Of {len(effects)} intervals of 95 %, {fixed(0.05 * len(effects), 1)} would be expected to exclude zero by "
        f"chance.{_one_seed(min(one['n'] for one in effects))}"
    )  # fmt: skip


def budgets(evidence: Evidence) -> Prose:
    """Which approach is ahead with how many labels, and where they cross."""
    leads, points = [], budget_points(evidence)
    for (labels, probe), (_, tuned) in zip(*points.values(), strict=True):
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
    fewest = min(len(runs) for some in points.values() for _, runs in some)
    return Prose(f"[Figure](#fig-budgets) and [Table](#tab-budgets) show it: {joined}. {end}{_one_seed(fewest)}")


def classes(study: Study) -> Prose:
    """Where fine-tuning helps most, and where it does not."""
    names = study["linear_probe"][0].classes
    probe, tuned = (classes_of(runs) for runs in study.values())
    gain = np.array([b.mean - a.mean for a, b in zip(probe, tuned, strict=True)])
    most, least = int(np.argmax(gain)), int(np.argmin(gain))
    sizes = np.bincount(study["linear_probe"][0].predictions()["test_labels"], minlength=len(names))
    digits = decimals(*[50 * (e.high - e.low) for e in probe + tuned])
    points = [f"{fixed(abs(100 * gain[at]), digits)} points" for at in (most, least)]
    if gain[most] == gain[least]:
        said = f"In these runs fine-tuning changes every class by {signed(100 * gain[most], digits)} points."
    elif gain[most] <= 0:
        said = (
            f"In these runs fine-tuning gains on no class; it loses least on {text(names[most])} ({points[0]}) and "
            f"most on {text(names[least])} ({points[1]})."
        )
    else:
        worst = "loses most" if gain[least] < 0 else "gains least"
        said = (
            f"In these runs fine-tuning gains most on {text(names[most])} ({points[0]}) and {worst} on "
            f"{text(names[least])} ({points[1]})."
        )
    if len(names) > 2 and gain[most] > gain[least]:
        said += f" These are the extremes of {len(names)} differences, so other runs would show smaller ones."
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
        sure = "too sure of itself" if t > 1 else "too modest"
        if not one["temperature_is_not_1"]:
            sure = "not clearly miscalibrated"
        spread = f" ± {one['temperature_sd']:.2f}" if one["temperature_sd"] is not None else ""
        said.append(
            f"{the(runs)} is {sure}: a temperature of {t:.2f}{spread}, fitted on validation images, takes its expected "
            f"calibration error from {percent(one['ece'])} to {percent(one['ece_scaled'])} and its loss from "
            f"{one['test_loss']:.{nats}f} to {one['test_loss_scaled']:.{nats}f} nats"
        )
    n = f" (means of n = {len(runs)} seeds)" if len(runs) > 1 else ""
    return Prose(
        "[Figure](#fig-reliability) compares confidence, the largest softmax probability, with accuracy [@guo2017]. On "
        f"the test images{n} {'; '.join(said)}."
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
    verdict = "hardly changes the first layer"
    if change >= 0.5:
        verdict = "rebuilds the first layer"
    elif change >= 0.2:
        verdict = "changes the first layer in part"
    elif change >= 0.05:
        verdict = "changes the first layer a little"
    return Prose(f"Fine-tuning {verdict}: what it adds has {percent(change)} of the pretrained weights' length.")


def limits(study: Study) -> Prose:
    """What is published about the test set, where it is CIFAR-10's."""
    run = study["linear_probe"][0]
    if not is_cifar10(run):
        return Prose(
            "Nothing is known here of wrong labels in this test set, nor of test images that resemble training images; "
            "both would bend every figure above, for both approaches."
        )
    labelled = run.info["data"]["train"] + run.info["data"]["validation"]
    part = "" if labelled == 50_000 else f"; of the {labelled:,} used here it will be fewer"
    return Prose(
        "A majority of annotators finds 54 of the 10,000 test labels of CIFAR-10 wrong [@northcutt2021]; as they are "
        "wrong for both approaches alike, they bend either accuracy more than the difference. 3.25 % of the test "
        f"images have a near-duplicate among all 50,000 training images [@barz2020]{part}, which favours whatever "
        "learns by heart. On CIFAR-10.1, drawn anew in the same way, published classifiers lose 3 to 15 points "
        "[@recht2019]: what is said here holds for this test set."
    )
