"""How the cost of our runs grows with images, epochs and seeds: each point measured in a process of its own."""

import dataclasses
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm import tqdm

from report_lib import data, machine, model, train
from report_lib.recipe import APPROACHES, named

EPOCHS = 10  # of a probe, as published
SCALING_SIZE = 64  # pixels a side: how cost grows does not depend on it, what measuring takes does
SCALING = {
    "images": [160, 320, 640, 1280],
    "epochs": [1, 2, 4, 8],
    "seeds": [1, 2, 5, 10],
}


def subset(images: data.Images, count: int) -> data.Images:
    """`count` training images, and test images as many as are held out of them: one in five."""
    tests = max(1, count // 5)
    rows, test_rows = torch.arange(count) % len(images.train), torch.arange(tests) % len(images.test)
    return dataclasses.replace(
        images, train=images.train[rows], train_labels=images.train_labels[rows], test=images.test[test_rows],
        test_labels=images.test_labels[test_rows], fingerprint=f"{images.fingerprint}, {count}",
    )  # fmt: skip


def scaling(source: str, weights: str, device: str) -> list[dict]:
    """Seconds and peak memory of our runs against images, epochs and seeds, each in a process of its own."""
    points = [
        (approach, varied, value)
        for approach in APPROACHES
        for varied, values in SCALING.items()
        for value in (values if approach == "linear_probe" or varied == "images" else values[:3])
    ]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["report_lib.train", "sklearn.datasets"])
    rows = []
    for approach, varied, value in tqdm(points, "how cost grows", unit="run"):
        pipe, other = context.Pipe()
        process = context.Process(target=point, args=(other, source, weights, device, approach, varied, value))
        process.start()
        other.close()  # so that a process that fails ends the wait
        seconds, memory = pipe.recv()
        process.join()
        rows.append(
            {"approach": approach, "varied": varied, "value": value, "seconds": seconds, "peak_memory_mib": memory}
        )
    return rows


def point(pipe: Connection, source: str, weights: str, device: str, approach: str, varied: str, value: int) -> None:
    fixed = 1280 if approach == "linear_probe" else 160
    count = value if varied == "images" else fixed
    chosen = torch.device(device)
    few = subset(data.load(source, SCALING_SIZE), count)
    loaded = model.load_weights(weights)
    precision = machine.pick_precision("auto", chosen)
    with tempfile.TemporaryDirectory() as scratch:
        setting = train.Setting(few, loaded, chosen, precision, Path(scratch))
        warm = train.Setting(subset(few, 64), loaded, chosen, precision, Path(scratch) / "warm")
        train.adapt(named(approach, image_size=SCALING_SIZE, epochs=1, batch_size=32), warm)
        machine.reset_peak_memory(chosen)
        clock = time.perf_counter()
        for seed in range(value if varied == "seeds" else 1):
            epochs = value if varied == "epochs" else EPOCHS if approach == "linear_probe" else 1
            train.adapt(named(approach, image_size=SCALING_SIZE, epochs=epochs, seed=seed), setting)
        pipe.send((time.perf_counter() - clock, machine.peak_memory_mib(chosen)))
