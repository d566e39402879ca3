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
    PUBLISHED_TEST_IMAGES,
    Study,
    accuracy_of,
    compare,
    data_title,
    device_of,
    interval,
    mean_of,
    p_value,
    percent,
    seconds,
)


def data(run: Run, data_name: str) -> Prose:
    """What the images are and how they were divided."""
    data, recipe = run.info["data"], run.info["recipe"]
    height, width = data["stored_size"]
    return Prose(
        f"The data are {text(data_title(run, data_name))}: {data['train']:,} training, {data['validation']:,} "
        f"validation and {data['test']:,} test images of {len(data['classes'])} classes. They are kept as "
        f"{width} × {height} pixels of uint8 and enlarged to {recipe['image_size']} × {recipe['image_size']} "
        f"on the device, batch by batch. The weights are {text(run.info['weights']['name'])}."
    )


def training(runs: Sequence[Run]) -> Prose:
    """Where validation was best, and whether the end of training still helped it."""
    accuracy = np.mean([run.epochs["validation_accuracy"] for run in runs], axis=0)
    loss = np.mean([run.epochs["validation_loss"] for run in runs], axis=0)
    train = np.mean([run.epochs["train_loss"] for run in runs], axis=0)
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"the mean of {len(runs)} seeds"
    best, last = int(accuracy.argmax()), len(accuracy) - 1
    peak = f"Validation accuracy ({who}) peaks at {percent(accuracy[best], 2)} in epoch {best + 1} of {last + 1}"
    lowest = int(loss.argmin())
    if lowest == last:
        trend = "validation loss is lowest in the last epoch, so more epochs might still help"
    elif train[last] < train[lowest]:
        trend = (
            f"validation loss is lowest in epoch {lowest + 1} ({loss[lowest]:.4f}) and {loss[last]:.4f} at the end, "
            "while training loss goes on falling: from there on the network learns its training images by heart"
        )
    else:
        trend = f"validation loss is lowest in epoch {lowest + 1} ({loss[lowest]:.4f}) and {loss[last]:.4f} at the end"
    return Prose(f"{peak}; {trend}.")


def test(runs: Sequence[Run]) -> Prose:
    """Test accuracy with its interval, against what validation promised."""
    estimate, images = accuracy_of(runs), runs[0].info["data"]["test"]
    held_out = runs[0].info["data"]["validation"]
    promised = mean_of(runs, "validation_accuracy")
    low, high = stats.wilson(round(promised * held_out), held_out)
    agree = max(low, estimate.low) <= min(high, estimate.high)
    return Prose(
        f"On the {images:,} test images, read once and only for the selected epoch, {NAMES[runs[0].approach]} is right "
        f"for {percent(estimate.mean, 2)} (95 % interval {interval(estimate.low, estimate.high)}, {estimate.method}; "
        f"n = {estimate.n} seed{'s' * (estimate.n > 1)}), with a loss of {mean_of(runs, 'test_loss'):.4f} nats per "
        f"sample. Validation had promised {percent(promised, 2)} ({interval(low, high)}); the two intervals "
        + (
            "overlap, so selection has not visibly flattered the model."
            if agree
            else "do not overlap, so the "
            "validation images are not quite like the test images, or selection has flattered the model."
        )  # fmt: skip
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
        f"{seconds(mean_of(runs, 'validation_seconds'))}) on {text(device_of(runs[0]))} in "
        f"{info['provenance']['precision']}, with at most {mean_of(runs, 'peak_memory_mib'):,.0f} MiB of memory. "
        f"It trains {info['trained_parameters']:,} of {info['parameters']:,} parameters ({share:.3g} %)."
    )


def conclusion(runs: Sequence[Run]) -> Prose:
    """What one approach alone has shown: how far above guessing it is, and its weakest class."""
    run = runs[0]
    predictions = [one.predictions() for one in runs]
    labels = predictions[0]["test_labels"]
    chance = np.bincount(labels).max() / len(labels)
    estimate = accuracy_of(runs)
    right = np.mean([p["test_logits"].argmax(1) == labels for p in predictions], axis=0)
    recall = np.array([right[labels == label].mean() for label in range(len(run.classes))])
    verdict = "well above" if estimate.low > 2 * chance else "above" if estimate.low > chance else "not clearly above"
    return Prose(
        f"With {percent(estimate.mean)}, {NAMES[run.approach]} is {verdict} the {percent(chance)} of always naming the "
        f"commonest class. It is best at {text(run.classes[recall.argmax()])} ({percent(recall.max())} of its test "
        f"images) and worst at {text(run.classes[recall.argmin()])} ({percent(recall.min())})."
    )


def difference(study: Study) -> Prose:
    """Which approach is more accurate, if either can be called so."""
    numbers = compare(study)
    diff, (low, high) = numbers["accuracy_difference"]["mean"], numbers["accuracy_difference"]["ci95"]
    reach = f"{100 * diff:+.2f} percentage points (95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
    where = f"{reach}, {numbers['ci95_method']})"
    if low > 0:
        verdict = f"Full fine-tuning is more accurate than the linear probe: {where}."
    elif high < 0:
        verdict = f"The linear probe is more accurate than full fine-tuning: the difference is {where}."
    else:
        verdict = f"No difference in test accuracy can be claimed: full fine-tuning minus linear probe is {where}."
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
    devices = sorted({device_of(run) for runs in study.values() for run in runs})
    same = "on the same device" if len(devices) == 1 else f"on different devices ({text(', '.join(devices))})"
    return Prose(
        f"{longer} took {factor:.1f} times as long to train ({seconds(times['linear_probe'])} for the probe, "
        f"{seconds(times['full_finetune'])} for fine-tuning, {same}): the frozen trunk needs one forward pass over the "
        "images in all, full fine-tuning a forward and a backward pass in every epoch."
    )


def published(study: Study, data_name: str) -> Prose:
    """Whether the published difference is one, and whether ours may be compared with it."""
    bounds = {
        a: stats.wilson(round(v["test_accuracy"] * PUBLISHED_TEST_IMAGES), PUBLISHED_TEST_IMAGES)
        for a, v in PUBLISHED.items()
    }
    gap = PUBLISHED["full_finetune"]["test_accuracy"] - PUBLISHED["linear_probe"]["test_accuracy"]
    apart = bounds["linear_probe"][1] < bounds["full_finetune"][0]
    run = study["linear_probe"][0].info
    comparable = run["recipe"]["data"] == "cifar10" and run["recipe"]["weights"] == "imagenet"
    return Prose(
        f"The published approaches differ by {100 * gap:.2f} percentage points, and their binomial intervals "
        + ("do not overlap" if apart else "overlap")
        + "; each is one unseeded run, chosen by its test accuracy. "
        + (
            "Data and weights are the same here, so the rows may be compared."
            if comparable
            else "Data or weights differ here, so the rows stand side by side and are not to be compared with each "
            "other; within one source they are."
        )
    )


def abstract(study: Study, data_name: str) -> Prose:
    """The first page's summary: which data, which weights, what was run, what came out."""
    run = study["linear_probe"][0]
    recipe, size = run.info["recipe"], run.info["recipe"]["image_size"]
    seeds = ", ".join(str(run.seed) for run in study["linear_probe"])
    numbers = compare(study)["accuracy_difference"]
    low, high = numbers["ci95"]
    outcome = "no difference between them can be claimed"
    if low > 0 or high < 0:
        better = "full fine-tuning" if low > 0 else "the linear probe"
        outcome = f"{better} is ahead by {abs(100 * numbers['mean']):.1f} percentage points"
    rates = {}
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        rates[approach] = f"{percent(estimate.mean)} ({interval(estimate.low, estimate.high)})"
    return Prose(
        f"- **Data:** {text(data_title(run, data_name))}.\n"
        f"- **Weights:** {text(run.info['weights']['name'])}.\n"
        f"- **Run:** recipe {recipe['recipe']}, {recipe['epochs']} epochs, {size} × {size} pixels, "
        f"seed{'s' * (',' in seeds)} {seeds}, on {text(device_of(run))}.\n"
        f"- **Outcome:** of {run.info['data']['test']:,} test images the linear probe gets "
        f"{rates['linear_probe']} right and full fine-tuning {rates['full_finetune']}; {outcome}."
    )


def verdict(study: Study) -> Prose:
    """The trade-off, in quantities that were measured."""
    numbers = compare(study)
    (low, high), ratio = numbers["accuracy_difference"]["ci95"], numbers["train_seconds_ratio"]
    gain = 100 * numbers["accuracy_difference"]["mean"]
    if low > 0:
        claim = (
            f"Full fine-tuning bought {gain:.1f} percentage points of test accuracy for {ratio:.1f} times the training "
            f"time. Where accuracy counts, that is the approach to take; where time or memory is short, the linear "
            f"probe offers {percent(accuracy_of(study['linear_probe']).mean)} for the remaining "
            f"{percent(1 / ratio)} of the time."
        )
    elif high < 0:
        claim = (
            f"The linear probe was ahead by {-gain:.1f} percentage points and took {1 / ratio:.3g} of the training "
            "time, so on these data, with this recipe, nothing speaks for full fine-tuning."
        )
    else:
        claim = (
            f"No difference in accuracy can be claimed, and full fine-tuning took {ratio:.1f} times the training time, "
            "so on these data, with this recipe, the cheaper approach is the better choice."
        )
    return Prose(claim)
