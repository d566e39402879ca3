"""Runs of one approach -> sentences. What the numbers do not show is not said; `findings` compares approaches.

What a study has not run is not spoken of: such a function returns None, and its cell shows nothing. A notebook puts
sentences of its own together with `say` and the functions of `numbers`.
"""

import math
from collections.abc import Sequence

import numpy as np

from report_lib.config import NETWORKS
from report_lib.data.folders import counted
from report_lib.evidence import costs, measures
from report_lib.evidence.measures import accuracy, mean_of, the
from report_lib.page.numbers import (
    DIGITS,
    at_least,
    by_seed,
    capital,
    decimals,
    interval,
    listed,
    percent,
    points,
    rate,
    seconds,
)
from report_lib.page.parts import Prose, text
from report_lib.runs import Run, Runs

DISTURBED = 0.05  # share of the machine's CPU time of others, from which a single measurement is spoken of


def say(*sentences: str) -> Prose | None:
    """Sentences of a notebook's own as one paragraph, each with a capital and a stop; None if there are none."""
    whole = [f"{capital(sentence)}." for sentence in sentences if sentence]
    return Prose(" ".join(whole)) if whole else None


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def nats(runs: Runs, value: float) -> str:
    """A loss, rounded by the uncertainty that the finite number of images gives those of the runs."""
    return f"{value:.{decimals(measures.standard_errors(runs)[1])}f}"


def took(runs: Runs) -> str:
    """Training time, with its range over seeds; without it where most of the time is of features measured once."""
    spent = [run.info["train_seconds"] for run in runs]
    mean = seconds(float(np.mean(spent)))
    return mean if costs.features_shared(runs) else mean + by_seed(seconds(min(spent)), seconds(max(spent)))


def company(runs: Runs, when: str = "meanwhile") -> str:
    """How far times can be relied upon: what other processes took of the machine; nothing if unknown."""
    if not (shares := costs.others_share(runs)):
        return ""
    between = listed((percent(share) for share in shares), "to")
    return f"{when} other processes took {between} of the machine’s CPU time"


def disturbed(runs: Runs) -> str:
    """That others were at work while the features were computed that all of `runs` use; nothing where they were not."""
    first = min(runs, key=lambda run: run.info["provenance"]["finished"])
    share = first.info["provenance"].get("others_share") or 0.0
    if share < DISTURBED:
        return ""
    return (f"those of {the(runs)} with *{runs[0].preset}* were computed while other processes took {percent(share)} "
            "of the machine’s CPU time; on a quiet machine the ratio is larger")  # fmt: skip


def unequal(runs: Runs) -> str:
    """How unequal the epochs of one approach were, if they were: those of an undisturbed machine are not."""
    epochs = np.concatenate([run.epochs["train_seconds"] for run in runs])
    uneven = epochs.max() > max(1.0, 2 * np.median(epochs))
    return f"single epochs took {seconds(epochs.min())} to {seconds(epochs.max())}" if uneven else ""


def judge(runs: Runs) -> str:
    """The images that select an epoch: validation's, or in the preset `published` those of the test."""
    return "test" if runs[0].info["selected_on"] == "test" else "validation"


def data(run: Run, data_name: str = "") -> Prose:
    """What the images are, what was left out or changed, how they were divided, and where the weights are from."""
    info, config, facts = run.info["data"], run.info["config"], run.info["data"]["facts"]
    size, (height, width), weights = config["image_size"], info["stored_size"], run.info["weights"]
    cited = " [@krizhevsky2009]" * measures.is_cifar10(run)
    origin = {"embedded": " [@le2015]", "imagenet": " [@deng2009]"}.get(config["weights"], "")
    untrained = "; the trunk knows nothing yet, which makes this run a control" * (weights["sha256"] is None)
    left_out = [text(counted(number, kind)) for kind, number in (facts.get("left_out") or {}).items() if number]
    return say(  # type: ignore[return-value]
        f"the data are {text(data_name or info['name'])}{cited}: {info['train']:,} training, {info['validation']:,} "
        f"validation and {info['test']:,} test images of {len(info['classes'])} classes, stored as {width} × {height} "
        f"pixels{f' and enlarged to {size} × {size} on the device' * ((height, width) != (size, size))}",
        f"left out: {listed(left_out)}" if left_out else "",
        f"test images that are exact copies of training images: {facts['copies']:,}" if facts.get("copies") else "",
        *(text(note.rstrip(".")) for note in facts.get("notes") or ()),
        f"the network is {run.info['network']['name']} [@{NETWORKS[run.info['network']['key']].citation}], with the "
        f"weights {text(weights['name'])}{origin} at the start{untrained}",
    )


def balance(training: np.ndarray, validation: np.ndarray, classes: Sequence[str]) -> Prose:
    """How the classes share the images that train and validate; the labels of both are integers (N,)."""
    train, held_out = (np.bincount(labels, minlength=len(classes)) for labels in (training, validation))
    most, least = int(train.max()), int(train.min())
    common, rare = (text(classes[int(at)]) for at in (train.argmax(), train.argmin()))
    sentences = [f"each class has {most:,} training images"]
    if most > 1.5 * least:
        sentences = [
            f"the classes are not balanced: {common} trains with {most:,} images, {rare} with {least:,}",
            f"always naming {common} would be right on {percent(most / train.sum())} of the training images",
        ]
    elif most > least:
        sentences = [f"the classes are about equally common, with {least:,} to {most:,} training images each"]
    alone = [text(classes[int(at)]) for at in np.flatnonzero(held_out == 0)] if held_out.sum() else []
    if alone:
        names = ", ".join(alone[:3]) + ", ..." * (len(alone) > 3)
        have = "class has" if len(alone) == 1 else "classes have"
        sentences.append(f"{len(alone)} {have} too few images to hold one out ({names}), so validation says nothing of "
                         f"{'it' if len(alone) == 1 else 'them'}")  # fmt: skip
    return say(*sentences)  # type: ignore[return-value]


def settings(run: Run) -> Prose:
    """How a run trains, in its own values, and what a notebook has changed."""
    config = run.info["config"]
    steps = config["epochs"] * math.ceil(run.info["data"]["train"] / config["batch_size"])  # the last may be smaller
    rise = f"rises over the first {percent(config['warmup'], 0)} of the steps and then " * (config["warmup"] > 0)
    course = "stays constant" if config["schedule"] == "constant" else "falls to zero as a cosine"
    shift = round(config["shift"] * max(run.info["data"]["stored_size"]))
    optimizer = {"adam": "Adam [@kingma2015]", "sgd": "SGD with Nesterov’s momentum"}[config["optimizer"]]
    return say(  # type: ignore[return-value]
        f"the preset *{run.preset}* trains with {optimizer} at a learning rate of {config['learning_rate']:g}, which "
        f"{rise}{course}",
        f"{count(config['epochs'], 'epoch')} of batches of {config['batch_size']:,} "
        f"make{'s' * (config['epochs'] == 1)} {count(steps, 'step')}",
        f"weight decay is {config['weight_decay']:g}" * (config["weight_decay"] > 0),
        f"the pretrained layers learn at {config['trunk_rate']:g} times that rate" * (config["trunk_rate"] != 1),
        "each feature is scaled to mean 0 and deviation 1 over the training images" * config["standardise"],
        "the head starts from that of a tuned linear probe" * (config["start"] == "probe"),
        "training pictures are mirrored at random" * config["flip"],
        f"training pictures are shifted at random by up to {count(shift, 'pixel')}" * (shift > 0),
        f"frozen features of {config['views']} views of each picture are kept" * (costs.views(run) > 1),
        "all layers below the last block stay frozen" * config["freeze_early"],
        f"this notebook has changed the run: {text(run.info['modified'])}" if run.info["modified"] else "",
    )


def training(runs: Runs) -> Prose:
    """Where accuracy was best on the images that select, and whether the end of training still helped it."""
    right, loss, train = (
        np.mean([run.epochs[name] for run in runs], axis=0)
        for name in ("validation_accuracy", "validation_loss", "train_loss")
    )
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"mean of {len(runs)} seeds"
    best, lowest, last = int(right.argmax()), int(loss.argmin()), len(loss) - 1
    part, epochs = judge(runs), sorted({run.info["selected_epoch"] for run in runs})
    trend = f"{part} loss is lowest in epoch {lowest + 1} ({nats(runs, loss[lowest])} nats)"
    if lowest == last:
        trend = f"{part} loss is lowest in the last epoch, so more epochs might still help"
    elif loss[last] < 1.05 * loss[lowest]:
        trend += f" and {nats(runs, loss[last])} at the end"
    else:
        fell = f"while training loss fell from {nats(runs, train[lowest])} to {nats(runs, train[last])}"
        trend += f" and has risen to {nats(runs, loss[last])} at the end, "
        trend += fell if train[last] < train[lowest] else "as has training loss: training is unstable"
    chosen = f"epoch {epochs[0]} is selected"
    if len(epochs) > 1:
        chosen = f"the seeds select epochs {listed(map(str, epochs))}"
    peak = f"peaks at {percent(right[best])} in epoch {best + 1} of {last + 1}"
    if best == last and last:
        peak = f"is highest in the last of {last + 1} epochs ({percent(right[best])})"
        peak += ", so more might still help" * (lowest < last)
    if not last:
        return say(f"after its only epoch, {part} accuracy ({who}) is {percent(right[0])}")  # type: ignore[return-value]
    return say(f"{part} accuracy ({who}) {peak}", trend, chosen)  # type: ignore[return-value]


def test(runs: Runs) -> Prose:
    """Test accuracy with its interval, and how far validation was above it."""
    estimate, images, gap = accuracy(runs), runs[0].info["data"]["test"], measures.gap(runs)
    if not gap:
        return say(  # type: ignore[return-value]
            f"the best of all epochs on the {images:,} test images reaches {rate(estimate)} (n = {estimate.n})",
            "since the test images selected that epoch, this is no estimate for new images",
        )
    varied = f", standard deviation {at_least(100 * estimate.sd, DIGITS)} points" if estimate.sd else ""
    below = sum(run.info["test_accuracy"] < run.info["validation_accuracy"] for run in runs)
    verdict = f"test minus validation accuracy is {points(gap)}"
    if len(runs) > 1:
        verdict += f", and below zero for {below} of {len(runs)} seeds"
    elif not gap.clear:
        verdict += ": no more than the draw of the images explains"
    return say(  # type: ignore[return-value]
        f"on the {images:,} test images, read once and only for the selected epoch, {the(runs)} reaches an accuracy of "
        f"{rate(estimate)} (95 % interval {interval(estimate)}, {estimate.method}; n = {count(estimate.n, 'seed')}"
        f"{varied}) and a loss of {nats(runs, mean_of(runs, 'test_loss'))} nats per sample",
        verdict,
    )


def cost(runs: Runs) -> Prose:
    """Time, throughput and memory of one run."""
    info, features, start = runs[0].info, mean_of(runs, "features_seconds"), mean_of(runs, "start_seconds")
    speed = f"{np.mean([costs.training_rate(run) for run in runs]):,.0f} images per second"
    parts = f"the training steps ran at {speed}"
    if features:
        once = np.mean([costs.features_rate(run) or 0 for run in runs])
        seen = f"{costs.views(runs[0])} views of each image" if costs.views(runs[0]) > 1 else "each image"
        parts = (f"of that, {seconds(features)} went into the frozen features of {seen}, computed once at {once:,.0f} "
                 f"per second; from them the head trained at {speed}")  # fmt: skip
    before = runs[0].info["config"]["start"] == "probe"
    return say(  # type: ignore[return-value]
        f"training {count(info['config']['epochs'], 'epoch')} took {took(runs)} on {text(measures.device_of(runs))}",
        f"{seconds(start)} of it went into the linear probe whose head it starts from" * before,
        parts,
        f"validation took another {seconds(mean_of(runs, 'validation_seconds'))}; memory peaked at "
        f"{costs.peak_memory(runs):,.0f} MiB",
        company(runs),
        unequal(runs),
    )


def conclusion(runs: Runs) -> Prose:
    """What one approach alone has shown: its accuracy, and its best and weakest class."""
    classes, estimate, confused = runs[0].classes, accuracy(runs), measures.confusion(runs)
    images = confused.sum(1)
    recall, chance = confused.diagonal() / images, float(images.max() / images.sum())
    best, worst = (
        f"{text(classes[at])} ({percent(recall[at])} of its test images)" for at in np.argsort(recall)[[-1, 0]]
    )
    unclear = f", not clearly more than the {percent(chance)} of always naming the commonest class"
    extremes = f"best at {best} and worst at {worst}" if recall.max() > recall.min() else "equally good at all classes"
    sentence = f"{the(runs)} classifies {rate(estimate)} of the test images correctly"
    return say(sentence + unclear * (estimate.low <= chance), f"it is {extremes}")  # type: ignore[return-value]
