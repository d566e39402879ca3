"""Records -> sentences. Imports no torch.

Every comparison is worded by its interval: what the numbers do not show is not said.
"""

from collections.abc import Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Prose, text
from report_lib.records import Run
from report_lib.tables import (
    NAMES,
    PUBLISHED,
    Study,
    accuracy_of,
    compare,
    confusion_of,
    data_title,
    device_of,
    interval,
    mean_of,
    p_value,
    percent,
    published_interval,
    recall_of,
    seconds,
)


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
    elif train[last] < train[lowest]:
        trend = (
            f"{at} and has risen to {loss[last]:.4f} at the end, while training loss fell from {train[lowest]:.4f} to "
            f"{train[last]:.4f}: what is learned after epoch {lowest + 1} does not carry over to other pictures"
        )
    else:
        trend = f"{at} and has risen to {loss[last]:.4f} at the end, as has training loss: training is unstable"
    return Prose(f"{peak}; {trend}.")


def test(runs: Sequence[Run]) -> Prose:
    """Test accuracy with its interval, against what validation promised."""
    estimate, images = accuracy_of(runs), runs[0].info["data"]["test"]
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
        f"with at most {mean_of(runs, 'peak_memory_mib'):,.0f} MiB of memory. "
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
    return Prose(f"{verdict} McNemar's exact test on the images where they disagree says: {tests}.")


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


def published(study: Study, data_name: str) -> Prose:
    """Whether the published difference is one, and whether ours may be compared with it."""
    bounds = {approach: published_interval(approach) for approach in PUBLISHED}
    gap = PUBLISHED["full_finetune"]["test_accuracy"] - PUBLISHED["linear_probe"]["test_accuracy"]
    apart = bounds["linear_probe"][1] < bounds["full_finetune"][0]
    run = study["linear_probe"][0].info
    as_published = {"data": "cifar10", "weights": "imagenet", "image_size": 224, "epochs": 10, "batch_size": 128}
    differs = [name.replace("_", " ") for name, value in as_published.items() if run["recipe"][name] != value]
    return Prose(
        f"The published approaches differ by {100 * gap:.2f} percentage points, and their binomial intervals "
        + ("do not overlap" if apart else "overlap")
        + "; each is one unseeded run, chosen by its test accuracy. "
        + (
            f"Here other things differ than the approach ({', '.join(differs)}), so the rows stand side by side and "
            "are not to be compared with each other; within one source they are."
            if differs
            else "Data, weights, image size, epochs and batch are the same here, so the rows may be compared."
        )
    )


def abstract(study: Study, data_name: str) -> Prose:
    """The first page's summary: which data, which weights, what was run, what came out."""
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
    return Prose(
        f"- **Data:** {text(data_title(run, data_name))}.\n"
        f"- **Weights:** {text(run.info['weights']['name'])}.\n"
        f"- **Run:** recipe {recipe['recipe']}, {recipe['epochs']} epochs, {size} × {size} pixels, "
        f"seed{'s' * (',' in seeds)} {seeds}, on {text(device_of([run for runs in study.values() for run in runs]))}.\n"
        f"- **Outcome:** of {run.info['data']['test']:,} test images the linear probe gets "
        f"{rates['linear_probe']} right and full fine-tuning {rates['full_finetune']}; {outcome}."
    )


def verdict(study: Study) -> Prose:
    """The trade-off, in quantities that were measured."""
    numbers = compare(study)
    gain, ratio = 100 * numbers["accuracy_difference"]["mean"], numbers["train_seconds_ratio"]
    cost = f"{ratio:.1f} times the training time" if ratio >= 1 else f"{percent(ratio)} of the training time"
    if not numbers["accuracy_difference_is_clear"]:
        cheaper = "the linear probe" if ratio >= 1 else "full fine-tuning"
        return Prose(
            f"No difference in accuracy can be claimed, and full fine-tuning took {cost} of the linear probe, so on "
            f"these data, with this recipe, {cheaper} is the better choice: it is the cheaper one."
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
