"""make bench: our training beside the published loop, on the same images, by turns; and how our cost grows.

Writes measured.json, which git does not track; with --keep, speed.json, which it does. Ratios are taken within one
repeat, so that a machine whose speed drifts does not falsify them. What is measured on less than a whole run says so:
one epoch of the published loop stands for each of its ten, since but for dropout all of them do the same work; ours are
measured with all ten, since only the first computes frozen features.
"""

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench import limit, show
from bench.answer import answers, labelled
from bench.growth import scaling, subset
from bench.published import published_rate
from bench.whole import trained
from report_lib import data, models, training
from report_lib.config import APPROACHES, Config, parameters, preset
from report_lib.files import InputError, write_whole
from report_lib.training.device import device_name

EPOCHS = 10  # of a probe, as published
REPEATS = 3  # at least
KINDS = {name: APPROACHES[name] for name in ("linear_probe", "full_finetune")}  # those that the listings have
PER_CLASS = 25  # labelled images where the time to an accuracy is measured, which takes whole runs of both sides
USED = ("data", "weights", "image_size", "per_class", "batch_size")  # of make's variables
FEW = 160  # images to warm up with and to guess from how many the budget allows: a batch of 128 in five


def main() -> int:
    options = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    options.add_argument(
        "--make", default="", help="make's variables DATA, WEIGHTS, SIZE, PER_CLASS, BATCH and DEVICE, if typed"
    )
    options.add_argument("--images", type=int, default=0, help="training images (default: what the budget allows)")
    options.add_argument("--budget", type=float, default=240, help="seconds in all, about")
    options.add_argument("--output", type=Path, default=show.MEASURED)
    options.add_argument("--keep", dest="output", action="store_const", const=show.KEPT, help="write speed.json")
    chosen = options.parse_args()
    try:
        typed = parameters.from_make({name: os.environ[name] for name in chosen.make.split()})
        config = Config(**{name: typed[name] for name in USED if name in typed})
        result = bench(config, str(typed.get("device", "auto")), chosen.budget, chosen.images)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_whole(chosen.output, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if chosen.output == show.KEPT:
        write_whole(show.GUIDE, show.guide(result))
    print(f"{show.told(result)}\n\n{chosen.output}")
    return 0


def bench(config: Config, device: str, budget: float, count: int = 0) -> dict:
    """What both sides do in about `budget` seconds, on the data, weights and size of `config`."""
    started = time.perf_counter()
    place = training.place(device)
    images = data.load(config)
    weights = models.load_weights(config.weights, config.network)
    growth = scaling(config.data, config.weights, str(place.device.type))
    net = models.build(config, images.classes, weights)
    rates = limit.rates(net, config.image_size, place.device, place.precision)
    left = budget - (time.perf_counter() - started)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other,
    ):
        side = Side(images, weights, place, config.image_size, Path(scratch), other)
        side.warm_up()
        count = count or side.affordable(left)
        repeats = side.compare(count, left / 2)
        profile = side.profile()
        per_class = config.per_class or PER_CLASS
        shared = {"data": config.data, "weights": config.weights, "image_size": config.image_size,
                  "batch_size": min(config.batch_size, per_class), "per_class": per_class}  # fmt: skip
        shared |= {"flip": False} if config.data == "digits" else {}  # a mirrored 2 is no 2
        answer = answers(labelled(images, per_class), weights, shared, place, Path(scratch), left / 2)
    forward, backward = models.flops(net, config.image_size)
    result: dict = {
        "device": device_name(place.device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": place.precision,
        "best_flops_per_second": rates,
        "data": images.name,
        "images": count,
        "image_size": config.image_size,
        "repeats": len(repeats),
        "published_epochs_measured": 1,
        "our_epochs_measured": {name: EPOCHS if approach.trains == "head" else 1 for name, approach in KINDS.items()},
    }
    for approach in KINDS:
        theirs, ours = ([row[f"{approach} {side}"] for row in repeats] for side in ("published", "ours"))
        result[approach] = {
            "published_images_per_second": float(np.median(theirs)),
            "ours_images_per_second": float(np.median(ours)),
            "ratio": spread([b / a for a, b in zip(theirs, ours, strict=True)]),
        }
    five = [row["five seeds"] / row["linear_probe published"] for row in repeats]
    result["linear_probe"]["ratio_of_five_seeds"] = spread(five)
    # An epoch's evaluation, of a fifth as many images, is a forward pass too; so is all that a probe does to a picture.
    work = {"linear_probe": 1.25 * forward / EPOCHS, "full_finetune": forward + backward + 0.25 * forward}
    fastest = max(rates[place.precision].values())
    for approach, operations in work.items():
        sides = result[approach]
        sides["share_of_best_rate"] = sides["ours_images_per_second"] * operations / fastest
        sides["share_of_features"] = float(np.median([row[f"{approach} features"] for row in repeats]))
    result |= {"scaling": growth, "profile": profile, "answer": answer, "answer_labels": per_class}
    result["seconds"] = round(time.perf_counter() - started, 1)
    result["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return result


def spread(values: list[float]) -> dict:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


@dataclasses.dataclass
class Side:
    """Both sides of the comparison, on the same images and the same device."""

    images: data.Images
    weights: models.Weights
    place: training.Place
    size: int
    scratch: Path
    other: ProcessPoolExecutor  # the published loop's process, which nothing of ours has tuned
    caches: int = 0

    def theirs(self, approach: str, images: data.Images) -> float:
        """Training images a second of one epoch of the published loop, its evaluation included."""
        part = (images.train.numpy(), images.train_labels.numpy())
        test = (images.test.numpy(), images.test_labels.numpy())
        classes = len(images.classes)
        return self.other.submit(published_rate, approach, part, test, classes, self.size, self.place.device).result()

    def ours(self, approach: str, images: data.Images, epochs: int, cache: Path | None = None, seed: int = 0) -> tuple:
        """(training images a second of a whole run, evaluation included; its seconds; those of its frozen features)."""
        config = preset(approach, image_size=self.size, epochs=epochs, seed=seed)
        place = dataclasses.replace(self.place, cache=cache or self.fresh())
        task, history = trained(config, images, self.weights, place)
        count = len(task.training.index)
        features = task.features_seconds * len(images.train) / count  # validation images included
        seconds = features + sum(e["train_seconds"] + e["validation_seconds"] for e in history.epochs)
        return count * epochs / seconds, seconds, features

    def fresh(self) -> Path:
        self.caches += 1
        return self.scratch / str(self.caches)

    def five_seeds(self, images: data.Images) -> float:
        """Training images a second of five probes that share their frozen features."""
        cache, seconds = self.fresh(), 0.0
        for seed in range(5):
            rate, took, features = self.ours("linear_probe", images, EPOCHS, cache, seed)
            seconds += took if seed == 0 else took - features
        return 5 * EPOCHS * (len(images.train) * 4 // 5) / seconds

    def warm_up(self) -> None:
        few = subset(self.images, FEW)
        for approach in KINDS:
            self.theirs(approach, few)
            self.ours(approach, few, 1)

    def affordable(self, budget: float) -> int:
        """How many images let REPEATS repeats fit the budget, from one repeat on few."""
        clock = time.perf_counter()
        self.repeat(subset(self.images, FEW))
        seconds = time.perf_counter() - clock
        fits = int(FEW * (budget - seconds) / (REPEATS + 0.5) / seconds) // FEW * FEW
        return min(max(fits, FEW), 40_960)

    def repeat(self, images: data.Images) -> dict[str, float]:
        return {
            **self.both("linear_probe", images, EPOCHS),
            **self.both("full_finetune", images, 1),
            "five seeds": self.five_seeds(images),
        }

    def both(self, approach: str, images: data.Images, epochs: int) -> dict[str, float]:
        theirs = self.theirs(approach, images)
        rate, seconds, features = self.ours(approach, images, epochs)
        return {
            f"{approach} published": theirs,
            f"{approach} ours": rate,
            f"{approach} features": features / seconds,
        }

    def compare(self, count: int, budget: float) -> list[dict[str, float]]:
        """The figures of each repeat: REPEATS of them, and more while the budget of seconds lasts."""
        images = subset(self.images, count)
        started = time.perf_counter()
        repeats: list[dict[str, float]] = []
        with tqdm(desc=f"{count} images at {self.size} px, by turns", unit="repeat") as bar:
            while len(repeats) < REPEATS or (time.perf_counter() - started) * (1 + 1 / len(repeats)) < budget:
                repeats.append(self.repeat(images))
                bar.update()
        return repeats

    def profile(self) -> list[dict]:
        """Where the time of one fine-tuning step goes, by operator."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else torch's profiler tells of a GPU that is not there
        few = subset(self.images, FEW)
        on_gpu = self.place.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * on_gpu
        with torch.profiler.profile(activities=activities) as profiler:
            self.ours("full_finetune", few, 1)
        cost = [(e.key, e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in profiler.key_averages()]
        total = sum(time for _, time in cost)
        top = sorted(cost, key=lambda pair: -pair[1])[:8]
        return [{"operator": name, "share": time / total} for name, time in top]


if __name__ == "__main__":
    sys.exit(main())
