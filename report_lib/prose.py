"""Records -> sentences. Imports no torch.

Every comparison is worded by its interval: what the numbers do not show is not said.
"""

from collections.abc import Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Prose, text
from report_lib.figures import filter_change
from report_lib.plan import Evidence
from report_lib.records import Run
from report_lib.tables import (
    DEFECTS,
    NAMES,
    PUBLISHED,
    Study,
    accuracy_of,
    budget_points,
    calibration_of,
    classes_of,
    compare,
    confusion_of,
    data_title,
    defect_effects,
    device_of,
    interval,
    mean_of,
    p_value,
    percent,
    published_interval,
    recall_of,
    right_of,
    seconds,
)


def _one_seed(n: int) -> str:
    """The caveat that intervals of a single seed need."""
    return " With one seed, these intervals cover the draw of test images, not that of seeds." if n == 1 else ""


def _the(runs: Sequence[Run]) -> str:
    return f"the {NAMES['linear_probe']}" if runs[0].approach == "linear_probe" else NAMES[runs[0].approach]


def data(run: Run, data_name: str) -> Prose:
    """What the images are and how they were divided."""
    data, size = run.info["data"], run.info["recipe"]["image_size"]
    height, width = data["stored_size"]
    enlarged = f", and enlarged to {size} × {size} on the device" if (height, width) != (size, size) else ""
    pretrained = run.info["weights"]["sha256"] is not None
    return Prose(
        f"The data are {text(data_title(run, data_name))}: {data['train']:,} training, {data['validation']:,} "
        f"validation and {data['test']:,} test images of {len(data['classes'])} classes, stored as {width} × {height} "
        f"pixels{enlarged}. The weights are {text(run.info['weights']['name'])}"
        + ("." if pretrained else ": the trunk knows nothing yet, which makes this run a control.")
    )


def training(runs: Sequence[Run]) -> Prose:
    """Where validation was best, and whether the end of training still helped it."""
    accuracy, loss, train = (
        np.mean([run.epochs[name] for run in runs], axis=0)
        for name in ("validation_accuracy", "validation_loss", "train_loss")
    )
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"the mean of {len(runs)} seeds"
    best, lowest, last = int(accuracy.argmax()), int(loss.argmin()), len(loss) - 1
    peak = f"Validation accuracy ({who}) peaks at {percent(accuracy[best], 2)} in epoch {best + 1} of {last + 1}"
    at = f"validation loss is lowest in epoch {lowest + 1} ({loss[lowest]:.4f})"
    if lowest == last:
        trend = "validation loss is lowest in the last epoch, so more epochs might still help"
    elif loss[last] < 1.05 * loss[lowest]:
        trend = f"{at} and about the same, {loss[last]:.4f}, at the end"
    elif train[last] < train[lowest] and best < last:
        trend = (
            f"{at} and has risen to {loss[last]:.4f} at the end, while training loss fell from {train[lowest]:.4f} to "
            f"{train[last]:.4f}: what is learned after epoch {lowest + 1} does not carry over to other pictures"
        )
    elif train[last] < train[lowest]:
        trend = f"{at} and has risen to {loss[last]:.4f} at the end: the network grows surer of its mistakes"
    else:
        trend = f"{at} and has risen to {loss[last]:.4f} at the end, as has training loss: training is unstable"
    return Prose(f"{peak}; {trend}.")


def test(runs: Sequence[Run]) -> Prose:
    """Test accuracy with its interval, against what validation promised."""
    estimate, images = accuracy_of(runs), runs[0].info["data"]["test"]
    if runs[0].info["selected_on"] == "test":
        return Prose(
            f"The best of all epochs on the {images:,} test images is right for {percent(estimate.mean, 2)} (n = "
            f"{estimate.n}). Since the test images selected that epoch, this is no estimate for new images."
        )
    held_out = runs[0].info["data"]["validation"]
    promised = mean_of(runs, "validation_accuracy")
    low, high = stats.wilson(round(promised * held_out), held_out)
    if max(low, estimate.low) <= min(high, estimate.high):
        verdict = "overlap, so selection has not visibly flattered the model"
    elif estimate.mean < promised:
        verdict = "do not overlap: selection has flattered the model, or the test images are harder"
    else:
        verdict = "do not overlap: the test images are easier than those held out"
    return Prose(
        f"On the {images:,} test images, read once and only for the selected epoch, {_the(runs)} is right "
        f"for {percent(estimate.mean, 2)} (95 % interval {interval(estimate.low, estimate.high)}, {estimate.method}; "
        f"n = {estimate.n} seed{'s' * (estimate.n > 1)}), with a loss of {mean_of(runs, 'test_loss'):.4f} nats per "
        f"sample. Validation had promised {percent(promised, 2)} ({interval(low, high)}); the two intervals {verdict}."
    )


def cost(runs: Sequence[Run]) -> Prose:
    """Time, throughput, memory and trained parameters of one run, averaged over seeds."""
    info = runs[0].info
    total = mean_of(runs, "train_seconds")
    parts = ""
    if features := mean_of(runs, "features_seconds"):
        parts = f", {seconds(features)} of them for the frozen features, which are computed once"
    share = 100 * info["trained_parameters"] / info["parameters"]
    return Prose(
        f"Training {info['recipe']['epochs']} epochs took {seconds(total)}{parts} "
        f"({mean_of(runs, 'images_per_second'):,.0f} images per second; validation another "
        f"{seconds(mean_of(runs, 'validation_seconds'))}) on {text(device_of(runs))}, "
        f"with at most {max(run.info['peak_memory_mib'] for run in runs):,.0f} MiB of memory. "
        f"It trains {info['trained_parameters']:,} of {info['parameters']:,} parameters ({share:.3g} %)."
    )


def conclusion(runs: Sequence[Run]) -> Prose:
    """What one approach alone has shown: how far above guessing it is, and its weakest class."""
    classes, recall, estimate = runs[0].classes, recall_of(runs), accuracy_of(runs)
    images = confusion_of(runs).sum(1)
    chance = float(images.max() / images.sum())
    verdict = "well above" if estimate.low > 2 * chance else "above" if estimate.low > chance else "not clearly above"
    best, worst = int(np.argmax(recall)), int(np.argmin(recall))
    spread = "It recognises every class equally well."
    if recall[best] > recall[worst]:
        spread = (
            f"It is best at {text(classes[best])} ({percent(recall[best])} of its test images) and worst at "
            f"{text(classes[worst])} ({percent(recall[worst])})."
        )
    return Prose(
        f"With {percent(estimate.mean)}, {_the(runs)} is {verdict} the {percent(chance)} of always naming "
        f"the commonest class. {spread}"
    )


def difference(study: Study) -> Prose:
    """Which approach is more accurate, if either can be called so."""
    numbers = compare(study)
    diff, (low, high) = numbers["accuracy_difference"]["mean"], numbers["accuracy_difference"]["ci95"]
    reach = f"{100 * diff:+.2f} percentage points (95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
    where = f"full fine-tuning minus linear probe is {reach}, {numbers['ci95_method']})"
    if not numbers["accuracy_difference_is_clear"]:
        verdict = f"No difference in test accuracy can be claimed: {where}."
    elif diff > 0:
        verdict = f"Full fine-tuning is more accurate than the linear probe: {where}."
    else:
        verdict = f"The linear probe is more accurate than full fine-tuning: {where}."
    tests = "; ".join(
        f"seed {t['seed']}: {t['only_full_finetune']:,} test images only fine-tuning gets right, "
        f"{t['only_linear_probe']:,} only the probe, {p_value(t['p'])}"
        for t in numbers["mcnemar"]
    )
    said = f"{verdict} McNemar's exact test on the images where they disagree says: {tests}."
    if (n := len(numbers["mcnemar"])) > 1:
        chance = numbers["chance_that_one_fine_tuning_run_beats_one_probe"]
        said += (
            f" Of all {n * n} pairs of one fine-tuned run and one probe, fine-tuning has the higher test accuracy in "
            f"{percent(chance, 0)} (ties count half)."
        )
    return Prose(said)


def loss(study: Study) -> Prose:
    """Validation losses, and the paired difference in test loss."""
    numbers = compare(study)["loss_difference"]
    low, high = numbers["ci95"]
    lower = "full fine-tuning" if numbers["mean"] < 0 else "the linear probe"
    claim = f"lower for {lower}" if low > 0 or high < 0 else "not distinguishable"
    at = {a: f"{mean_of(runs, 'validation_loss'):.4f}" for a, runs in study.items()}
    return Prose(
        f"At the selected epochs the validation loss is {at['linear_probe']} for the linear probe and "
        f"{at['full_finetune']} for full fine-tuning. On the test images the loss is {claim}: fine-tuning minus probe "
        f"is {numbers['mean']:+.4f} nats (95 % interval {low:+.4f} to {high:+.4f})."
    )


def time(study: Study) -> Prose:
    """Training time of both, as a ratio."""
    times = {a: mean_of(runs, "train_seconds") for a, runs in study.items()}
    ratio = times["full_finetune"] / times["linear_probe"]
    longer, factor = ("Full fine-tuning", ratio) if ratio >= 1 else ("The linear probe", 1 / ratio)
    devices = {device_of([run]) for runs in study.values() for run in runs}
    same = "on the same device" if len(devices) == 1 else f"on different devices ({text('; '.join(sorted(devices)))})"
    took = (
        f"{longer} took {factor:.1f} times as long to train ({seconds(times['linear_probe'])} for the probe, "
        f"{seconds(times['full_finetune'])} for fine-tuning, {same})"
    )
    if len(devices) > 1:
        return Prose(f"{took}, so the times say little about the approaches.")
    return Prose(
        f"{took}. The frozen trunk needs one forward pass over the images in all, full fine-tuning a forward and a "
        "backward pass in every epoch."
    )


def published(evidence: Evidence, data_name: str) -> Prose:
    """Whether the published difference is one, and whether ours may be compared with it."""
    bounds = {approach: published_interval(approach) for approach in PUBLISHED}
    gap = PUBLISHED["full_finetune"]["test_accuracy"] - PUBLISHED["linear_probe"]["test_accuracy"]
    apart = bounds["linear_probe"][1] < bounds["full_finetune"][0]
    run = evidence.main["linear_probe"][0].info
    as_published = {"data": "cifar10", "weights": "imagenet", "image_size": 224, "epochs": 10, "batch_size": 128,
                    "learning_rate": 0.001, "val_fraction": 0.2, "per_class": 0}  # fmt: skip
    differs = [name.replace("_", " ") for name, value in as_published.items() if run["recipe"][name] != value]
    return Prose(
        f"The published approaches differ by {100 * gap:.2f} percentage points, and their binomial intervals "
        + ("do not overlap" if apart else "overlap")
        + "; each is one unseeded run, chosen by its test accuracy. "
        + (
            f"Here other things differ than the approach ({', '.join(differs)}), so the rows stand side by side and "
            "are not to be compared with each other; within one source they are."
            if differs
            else "Data, weights, image size, epochs, batch and learning rate are the same here, so the rows of the "
            "recipe published may be compared with them; the other recipes also select differently."
        )
    )


def defects(evidence: Evidence) -> Prose:
    """Which published defects change what is reported, and which cannot be said to."""
    effects = defect_effects(evidence)
    if not effects:
        return Prose("")
    clear = [one for one in effects if one["effect_is_clear"]]
    named = {id(one): f"{DEFECTS[one['defect']]} ({NAMES[one['approach']]})" for one in effects}
    if not clear:
        return Prose("No single defect can be said to change the reported accuracy: each interval holds zero.")
    largest = max(clear, key=lambda one: abs(one["effect"]))
    up, down = ([named[id(one)] for one in clear if (one["effect"] > 0) == better] for better in (True, False))
    said = f"Of {len(effects)} defects, {len(clear)} change{'s' * (len(clear) == 1)} the reported accuracy clearly. "
    if up:
        said += f"It is raised by: {'; '.join(up)}. "
    if down:
        said += f"It is lowered by: {'; '.join(down)}. "
    said = f"[Table](#tab-defects) switches them on one at a time. {said}"
    return Prose(
        said + f"The largest effect, {100 * largest['effect']:+.2f} points, is that of {named[id(largest)]}. "
        "An accuracy of the best *test* epoch is no estimate for new images even where its effect is small."
        + _one_seed(effects[0]["n"])
    )


def recipes(evidence: Evidence) -> Prose:
    """What tuning brings over the corrected recipe, paired on the same test images."""
    if not {"tuned", "corrected"} <= set(evidence.recipes):
        return Prose("This study has not been run with both recipes, corrected and tuned (parameter `recipes`).")
    said = []
    for approach in NAMES:
        runs = evidence.runs[approach]
        change = stats.paired_difference(right_of(runs["corrected"]), right_of(runs["tuned"]))
        reach = f"{100 * change.mean:+.2f} points, 95 % interval {100 * change.low:+.2f} to {100 * change.high:+.2f}"
        if not change.clear:
            verdict = f"tuning cannot be said to change the test accuracy of {NAMES[approach]}"
        elif change.mean > 0:
            verdict = f"tuning raises the test accuracy of {NAMES[approach]}"
        else:
            verdict = f"tuning lowers the test accuracy of {NAMES[approach]}"
        said.append(f"{verdict} ({reach})")
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


def calibration(study: Study) -> Prose:
    """How sure the networks are against how right they are, before and after temperature scaling."""
    said = []
    for runs in study.values():
        if runs[0].info["selected_on"] == "test":
            return Prose("These runs held out no validation images, so no temperature can be fitted honestly.")
        one = calibration_of(runs)
        t = one["temperature"]
        sure = "too sure of itself" if t > 1.02 else "too modest" if t < 0.98 else "fair"
        said.append(
            f"{_the(runs)} is {sure}: a temperature of {t:.2f}, fitted on validation images, takes its expected "
            f"calibration error from {percent(one['ece'])} to {percent(one['ece_scaled'])} and its loss from "
            f"{one['test_loss']:.4f} to {one['test_loss_scaled']:.4f} nats"
        )
    return Prose(
        "[Figure](#fig-reliability) compares confidence, the largest softmax probability, with accuracy [@guo2017]. On "
        f"the test images {'; '.join(said)}."
    )


def classes(study: Study) -> Prose:
    """Where fine-tuning helps most, and where it does not."""
    names = study["linear_probe"][0].classes
    probe, tuned = (classes_of(runs) for runs in study.values())
    gain = [b.mean - a.mean for a, b in zip(probe, tuned, strict=True)]
    most, least = int(np.argmax(gain)), int(np.argmin(gain))
    sizes = np.bincount(study["linear_probe"][0].predictions()["test_labels"], minlength=len(names))
    said = (
        f"In these runs fine-tuning gains most on {text(names[most])} ({100 * gain[most]:+.1f} points) and least on "
        f"{text(names[least])} ({100 * gain[least]:+.1f} points)."
    )
    if sizes.max() > 2 * sizes.min():
        said += (
            f" The classes are not balanced: {text(names[int(sizes.argmax())])} has {sizes.max():,} test images, "
            f"{text(names[int(sizes.argmin())])} {sizes.min():,}; the mean over classes is "
            f"{percent(float(np.mean([e.mean for e in probe])))} for the linear probe and "
            f"{percent(float(np.mean([e.mean for e in tuned])))} for full fine-tuning."
        )
    return Prose(said)


def overlap(study: Study) -> Prose:
    """How many test images both, one or neither gets right."""
    right = {approach: right_of(runs[:1])[0] for approach, runs in study.items()}
    seed = study["linear_probe"][0].seed
    both = (right["linear_probe"] & right["full_finetune"]).mean()
    neither = (~right["linear_probe"] & ~right["full_finetune"]).mean()
    either = 1 - neither
    return Prose(
        f"With seed {seed}, both are right on {percent(float(both))} of the test images and neither on "
        f"{percent(float(neither))}. Who always knew which of the two to trust would be right on "
        f"{percent(float(either))}."
    )


def filters(run: Run) -> Prose:
    """How far fine-tuning has moved the first layer."""
    change = filter_change(run)
    size = "hardly touches" if change < 0.05 else "reshapes in part" if change < 0.5 else "rebuilds"
    return Prose(
        f"Fine-tuning {size} the first layer: what it adds has {percent(change)} of the pretrained weights' length."
    )


def limits(study: Study, data_name: str) -> Prose:
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


def abstract(evidence: Evidence, data_name: str) -> Prose:
    """The first page's summary: which data, which weights, what was run, what came out."""
    study = evidence.main
    run = study["linear_probe"][0]
    recipe, size = run.info["recipe"], run.info["recipe"]["image_size"]
    seeds = ", ".join(str(run.seed) for run in study["linear_probe"])
    numbers = compare(study)
    gain = 100 * numbers["accuracy_difference"]["mean"]
    outcome = "no difference between them can be claimed"
    if numbers["accuracy_difference_is_clear"]:
        better = "full fine-tuning" if gain > 0 else "the linear probe"
        outcome = f"{better} is ahead by {abs(gain):.1f} percentage points"
    rates = {}
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        rates[approach] = f"{percent(estimate.mean)} ({interval(estimate.low, estimate.high)})"
    others = [name for name in evidence.recipes if name != recipe["recipe"]]
    also = f", beside it {' and '.join(others)}" if others else ""
    count = sum(len(runs) for kinds in evidence.runs.values() for runs in kinds.values())
    best = ""
    if "tuned" in others:
        tuned = {approach: percent(accuracy_of(runs).mean) for approach, runs in evidence.of("tuned").items()}
        best = f" Tuned, they reach {tuned['linear_probe']} and {tuned['full_finetune']}."
    return Prose(
        f"- **Data:** {text(data_title(run, data_name))}.\n"
        f"- **Weights:** {text(run.info['weights']['name'])}.\n"
        f"- **Run:** recipe {recipe['recipe']}{also}; {recipe['epochs']} epochs, {size} × {size} pixels, "
        f"seed{'s' * (',' in seeds)} {seeds}, {count} runs in all, on "
        f"{text(device_of([run for runs in study.values() for run in runs]))}.\n"
        f"- **Outcome:** of {run.info['data']['test']:,} test images the linear probe gets "
        f"{rates['linear_probe']} right and full fine-tuning {rates['full_finetune']}; {outcome}.{best}"
    )


def verdict(study: Study) -> Prose:
    """The trade-off, in quantities that were measured."""
    numbers = compare(study)
    if len({device_of([run]) for runs in study.values() for run in runs}) > 1:
        return Prose(
            "The runs were made on different devices, so their times cannot be weighed against their accuracies. "
            + difference(study).markdown.split(" McNemar")[0]
        )
    gain, ratio = 100 * numbers["accuracy_difference"]["mean"], numbers["train_seconds_ratio"]
    cost = f"{ratio:.1f} times the training time" if ratio >= 1 else f"{percent(ratio)} of the training time"
    if not numbers["accuracy_difference_is_clear"]:
        cheaper = "the linear probe" if ratio >= 1 else "full fine-tuning"
        return Prose(
            f"No difference in accuracy can be claimed, and full fine-tuning took {cost} of the linear probe. As "
            f"long as none is shown, {cheaper} is the better choice on these data, with this recipe: it is the "
            "cheaper one."
        )
    if gain < 0:
        return Prose(
            f"The linear probe is ahead by {-gain:.1f} percentage points, and full fine-tuning took {cost} of the "
            "probe; on these data, with this recipe, "
            + ("nothing speaks for it." if ratio >= 1 else "only its shorter time speaks for it.")
        )
    probe = percent(accuracy_of(study["linear_probe"]).mean)
    return Prose(
        f"Full fine-tuning is ahead by {gain:.1f} percentage points of test accuracy, at {cost} of the linear probe. "
        + (
            f"Where accuracy counts, that is the approach to take; where training time is short, the probe offers "
            f"{probe} for {percent(1 / ratio)} of the time."
            if ratio >= 1
            else "It is the better choice in both."
        )
    )
