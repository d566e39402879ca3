"""Time to the same answer: what a user waits for is an accuracy, not an epoch.

The answer is the validation accuracy that the preset `corrected` selects. A curve has reached it at the first epoch
that has it, since the best epoch is the one that is kept. The published loop is run on the same training and validation
images, whole, with its own clock; where it never gets there, its whole time counts, which is then the least that it
could take.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.published import full_finetune, linear_probe
from bench.whole import trained
from report_lib import data, models, training
from report_lib.config import Config, preset

LOOPS = {"linear_probe": linear_probe, "full_finetune": full_finetune}


def reached(accuracies: Sequence[float], target: float) -> int | None:
    """The first epoch, from 1, whose accuracy is at least `target`; None if there is none."""
    return next((epoch for epoch, accuracy in enumerate(accuracies, 1) if accuracy >= target), None)


def measure(images: data.Images, weights: models.Weights, shared: dict, place: training.Place, approach: str) -> dict:
    """Seconds until the answer of `approach`, features included: of corrected, tuned and the published loop."""
    config = preset(approach, "corrected", **shared)
    curves = {name: ours(images, weights, preset(approach, name, **shared), place) for name in ("corrected", "tuned")}
    target = max(curves["corrected"][0])
    curves["published loop"] = theirs(images, weights, config, place, approach)
    rows = {}
    for name, (accuracies, seconds) in curves.items():
        epoch = reached(accuracies, target)
        rows[name] = {"epoch": epoch, "seconds": seconds[(epoch or len(seconds)) - 1], "best_accuracy": max(accuracies)}
    return {"target": target, "seed": config.seed, **rows}


def ours(images: data.Images, weights: models.Weights, config: Config, place: training.Place) -> tuple[list, list]:
    """(validation accuracies, seconds since the start) of each epoch, frozen features and starts included."""
    task, history = trained(config, images, weights, place)
    each = [epoch["train_seconds"] + epoch["validation_seconds"] for epoch in history.epochs]
    before = task.start_seconds + task.features_seconds + task.validation_features_seconds
    return [epoch["validation_accuracy"] for epoch in history.epochs], list(before + np.cumsum(each))


def theirs(
    images: data.Images, weights: models.Weights, config: Config, place: training.Place, approach: str
) -> tuple[list, list]:
    """The same of the published loop, which tests on the validation images here."""
    index, held_out = (part.numpy() for part in data.split(images.train_labels, config))
    pixels, labels = images.train.numpy(), images.train_labels.numpy()
    torch.manual_seed(config.seed)
    net = models.build(config, images.classes, weights).to(place.device)
    orders = [np.random.default_rng([config.seed, epoch]).permutation(len(index)) for epoch in range(config.epochs)]
    curves = LOOPS[approach](
        net, (pixels[index], labels[index]), (pixels[held_out], labels[held_out]), [o.tolist() for o in orders],
        config.image_size, place.device, config.batch_size,
    )  # fmt: skip
    return curves["accuracy"], list(np.cumsum(curves["seconds"]))


def labelled(images: data.Images, per_class: int) -> data.Images:
    """So many training images of each class, and none to test on."""
    rows = torch.cat(data.split(images.train_labels, Config(per_class=per_class))).sort().values
    return dataclasses.replace(
        images, train=images.train[rows], train_labels=images.train_labels[rows], test=images.test[:0],
        test_labels=images.test_labels[:0], fingerprint=f"{images.fingerprint}, {per_class} of each class",
    )  # fmt: skip


def answers(
    images: data.Images, weights: models.Weights, shared: dict, place: training.Place, scratch: Path, budget: float
) -> dict[str, list[dict]]:
    """Approach -> one measurement per seed: at least one, and more while the budget of seconds lasts.

    A seed draws another split, and computes its features anew.
    """
    found: dict[str, list[dict]] = {approach: [] for approach in LOOPS}
    started, seed = time.perf_counter(), 0
    while seed == 0 or (time.perf_counter() - started) * (1 + 1 / seed) < budget:
        for approach in LOOPS:
            own = dataclasses.replace(place, cache=scratch / f"answer-{approach}-{seed}")
            own.cache.mkdir()
            found[approach].append(measure(images, weights, shared | {"seed": seed}, own, approach))
        seed += 1
    return found
