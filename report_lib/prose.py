"""Records -> sentences: each approach, and the comparison. Imports no torch.

Every comparison is worded by its interval: what the numbers do not show is not said.
"""

from collections.abc import Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Prose, text
from report_lib.formats import decimals, fixed, interval, p_value, percent, rate, reach, seconds, signed
from report_lib.measures import (
    PUBLISHED,
    Study,
    accuracy_of,
    compare,
    confusion_of,
    data_title,
    device_of,
    errors_of,
    mean_of,
    published_interval,
    recall_of,
    the,
)
from report_lib.plan import Evidence
from report_lib.records import Run


def _decimals(runs: Sequence[Run]) -> tuple[int, int]:
    """Decimals that the draw of images leaves meaningful, of an accuracy in percent and of a loss in nats."""
    accuracy, loss = errors_of(runs)
    return decimals(100 * accuracy), decimals(loss)


def _points(numbers: dict) -> str:
    """How far apart the two approaches are, in percentage points."""
    difference = numbers["accuracy_difference"]
    return fixed(100 * abs(difference["mean"]), reach(*difference["ci95"])[1])


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


def balance(training: np.ndarray, validation: np.ndarray, classes: Sequence[str]) -> Prose:
    """How the classes share the images that train and validate; the labels of both are integers (N,)."""
    train, held_out = (np.bincount(labels, minlength=len(classes)) for labels in (training, validation))
    most, least = int(train.argmax()), int(train.argmin())
    if train[most] <= 1.5 * train[least]:
        said = "The classes are about equally common: "
        said += f"each trains with {train[most]:,} images" if train[most] == train[least] else (
            f"each trains with {train[least]:,} to {train[most]:,} images"
        )  # fmt: skip
    else:
        said = (
            f"The classes are not balanced: {text(classes[most])} trains with {train[most]:,} images, "
            f"{text(classes[least])} with {train[least]:,}. A network that always named {text(classes[most])} would be "
            f"right on {percent(float(train[most] / train.sum()))} of the training images"
        )
    alone = np.flatnonzero(held_out == 0)
    if held_out.sum() and len(alone):
        shown = ", ".join(text(classes[at]) for at in alone[:3]) + ", ..." * (len(alone) > 3)
        are = "class has" if len(alone) == 1 else "classes have"
        said += f". {len(alone)} {are} too few images to hold one out ({shown}), so validation says nothing of them"
    return Prose(said + ".")


def training(runs: Sequence[Run]) -> Prose:
    """Where validation was best, and whether the end of training still helped it."""
    accuracy, loss, train = (
        np.mean([run.epochs[name] for run in runs], axis=0)
        for name in ("validation_accuracy", "validation_loss", "train_loss")
    )
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"the mean of {len(runs)} seeds"
    digits, nats = _decimals(runs)
    best, lowest, last = int(accuracy.argmax()), int(loss.argmin()), len(loss) - 1
    peak = f"Validation accuracy ({who}) peaks at {percent(accuracy[best], digits)} in epoch {best + 1} of {last + 1}"
    at = f"validation loss is lowest in epoch {lowest + 1} ({loss[lowest]:.{nats}f})"
    if lowest == last:
        trend = "validation loss is lowest in the last epoch, so more epochs might still help"
    elif loss[last] < 1.05 * loss[lowest]:
        trend = f"{at} and about the same, {loss[last]:.{nats}f}, at the end"
    elif train[last] < train[lowest] and best < last:
        trend = (
            f"{at} and has risen to {loss[last]:.{nats}f} at the end, while training loss fell from "
            f"{train[lowest]:.{nats}f} to {train[last]:.{nats}f}: what is learned after epoch {lowest + 1} does not "
            "carry over to other pictures"
        )
    elif train[last] < train[lowest]:
        trend = f"{at} and has risen to {loss[last]:.{nats}f} at the end: the network grows surer of its mistakes"
    else:
        trend = f"{at} and has risen to {loss[last]:.{nats}f} at the end, as has training loss: training is unstable"
    return Prose(f"{peak}; {trend}.")


def test(runs: Sequence[Run]) -> Prose:
    """Test accuracy with its interval, against what validation promised."""
    estimate, images = accuracy_of(runs), runs[0].info["data"]["test"]
    digits, nats = decimals(50 * (estimate.high - estimate.low)), _decimals(runs)[1]
    if runs[0].info["selected_on"] == "test":
        return Prose(
            f"The best of all epochs on the {images:,} test images is right for {rate(estimate)} (n = "
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
        f"On the {images:,} test images, read once and only for the selected epoch, {the(runs)} is right "
        f"for {rate(estimate)} (95 % interval {interval(estimate.low, estimate.high, digits)}, "
        f"{estimate.method}; n = {estimate.n} seed{'s' * (estimate.n > 1)}), with a loss of "
        f"{mean_of(runs, 'test_loss'):.{nats}f} nats per sample. Validation had promised {percent(promised, digits)} "
        f"({interval(low, high, digits)}); the two intervals {verdict}."
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
        f"With {rate(estimate)}, {the(runs)} is {verdict} the {percent(chance)} of always naming "
        f"the commonest class. {spread}"
    )


def difference(study: Study) -> Prose:
    """Which approach is more accurate, if either can be called so."""
    numbers = compare(study)
    diff, (low, high) = numbers["accuracy_difference"]["mean"], numbers["accuracy_difference"]["ci95"]
    between, digits = reach(low, high)
    points = f"{signed(100 * diff, digits)} percentage points (95 % interval {between}"
    where = f"full fine-tuning minus linear probe is {points}, {numbers['ci95_method']})"
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
    between, digits = reach(low, high, 1)
    at = {a: f"{mean_of(runs, 'validation_loss'):.{_decimals(runs)[1]}f}" for a, runs in study.items()}
    return Prose(
        f"At the selected epochs the validation loss is {at['linear_probe']} for the linear probe and "
        f"{at['full_finetune']} for full fine-tuning. On the test images the loss is {claim}: fine-tuning minus probe "
        f"is {signed(numbers['mean'], digits)} nats (95 % interval {between})."
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


def published(evidence: Evidence) -> Prose:
    """Whether the published difference is one, and whether ours may be compared with it."""
    bounds = {approach: published_interval(approach) for approach in PUBLISHED}
    gap = PUBLISHED["full_finetune"]["test_accuracy"] - PUBLISHED["linear_probe"]["test_accuracy"]
    apart = bounds["linear_probe"][1] < bounds["full_finetune"][0]
    run = evidence.main["linear_probe"][0].info
    as_published = {"data": "cifar10", "weights": "imagenet", "image_size": 224, "epochs": 10, "batch_size": 128,
                    "learning_rate": 0.001, "val_fraction": 0.2, "per_class": 0}  # fmt: skip
    words = {"image_size": "image size", "batch_size": "batch", "learning_rate": "learning rate",
             "val_fraction": "share held out", "per_class": "number of labelled images"}  # fmt: skip
    differs = [words.get(name, name) for name, value in as_published.items() if run["recipe"][name] != value]
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
        outcome = f"{better} is ahead by {_points(numbers)} percentage points"
    rates = {}
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        digits = decimals(50 * (estimate.high - estimate.low))
        rates[approach] = f"{rate(estimate)} ({interval(estimate.low, estimate.high, digits)})"
    others = [name for name in evidence.recipes if name != recipe["recipe"]]
    also = f", beside it {' and '.join(others)}" if others else ""
    labelled = ""
    if recipe["per_class"]:
        used = run.info["data"]["train"] + run.info["data"]["validation"]
        labelled = f"; {recipe['per_class']:,} labelled images of each class are used, {used:,} in all"
    count = sum(len(runs) for kinds in evidence.runs.values() for runs in kinds.values())
    best = ""
    if "tuned" in others:
        tuned = {approach: rate(accuracy_of(runs)) for approach, runs in evidence.of("tuned").items()}
        best = f" Tuned, they reach {tuned['linear_probe']} and {tuned['full_finetune']}."
    return Prose(
        f"- **Data:** {text(data_title(run, data_name))}{labelled}.\n"
        f"- **Weights:** {text(run.info['weights']['name'])}.\n"
        f"- **Run:** recipe {recipe['recipe']}{also}; {recipe['epochs']} epochs, {size} × {size} pixels, "
        f"seed{'s' * (',' in seeds)} {seeds}, {count} runs in all, on "
        f"{text(device_of([run for runs in study.values() for run in runs]))}.\n"
        f"- **Outcome:** of {run.info['data']['test']:,} test images the linear probe gets "
        f"{rates['linear_probe']} right and full fine-tuning {rates['full_finetune']}; {outcome}.{best}"
    )


def verdict(evidence: Evidence) -> Prose:
    """The trade-off of the presented recipe, and of tuned, in quantities that were measured."""
    if "tuned" not in evidence.recipes:
        return Prose(_verdict(evidence.main))
    corrected, tuned = _verdict(evidence.main), _verdict(evidence.of("tuned"))
    return Prose(f"With the recipe **corrected**: {corrected}\n\nWith the recipe **tuned**: {tuned}")


def _verdict(study: Study) -> str:
    numbers = compare(study)
    if len({device_of([run]) for runs in study.values() for run in runs}) > 1:
        return (
            "The runs were made on different devices, so their times cannot be weighed against their accuracies. "
            + difference(study).markdown.split(" McNemar")[0]
        )
    gain, ratio = 100 * numbers["accuracy_difference"]["mean"], numbers["train_seconds_ratio"]
    cost = f"{ratio:.1f} times the training time" if ratio >= 1 else f"{percent(ratio)} of the training time"
    if not numbers["accuracy_difference_is_clear"]:
        cheaper = "the linear probe" if ratio >= 1 else "full fine-tuning"
        return (
            f"No difference in accuracy can be claimed, and full fine-tuning took {cost} of the linear probe. As "
            f"long as none is shown, {cheaper} is the better choice on these data, with this recipe: it is the "
            "cheaper one."
        )
    if gain < 0:
        return (
            f"The linear probe is ahead by {_points(numbers)} percentage points, and full fine-tuning took {cost} of "
            "the probe; on these data, with this recipe, "
            + ("nothing speaks for it." if ratio >= 1 else "only its shorter time speaks for it.")
        )
    probe = rate(accuracy_of(study["linear_probe"]))
    return (
        f"Full fine-tuning is ahead by {_points(numbers)} percentage points of test accuracy, at {cost} of the "
        "linear probe. "
        + (
            f"Where accuracy counts, that is the approach to take; where training time is short, the probe offers "
            f"{probe} for {percent(1 / ratio)} of the time."
            if ratio >= 1
            else "It is the better choice in both."
        )
    )
