"""How the cost of our runs grows with images, epochs, seeds and networks: each point in a process of its own."""

import dataclasses
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm import tqdm

from bench.whole import trained
from report_lib import data, models, training
from report_lib.config import NETWORKS, Config, preset
from report_lib.training.device import peak_memory_mib, reset_peak_memory

APPROACHES = ("linear_probe", "full_finetune")  # those that the listings have

USUAL = {  # what does not vary
    "linear_probe": {"images": 1280, "epochs": 10, "seeds": 1, "network": Config.network},  # epochs as published
    "full_finetune": {"images": 160, "epochs": 1, "seeds": 1, "network": Config.network},
}
SCALING_SIZE = 64  # pixels a side: how cost grows does not depend on it, what measuring takes does
SEEDS_SIZE = Config.image_size  # but how much seeds share, which is their frozen features, does
SCALING: dict[str, list] = {
    "images": [160, 320, 640, 1280],
    "epochs": [1, 2, 4, 8],
    "seeds": [1, 2, 5, 10],
    "network": list(NETWORKS),
}


def size_of(varied: str) -> int:
    """Pixels a side of the pictures where `varied` is varied."""
    return SEEDS_SIZE if varied == "seeds" else SCALING_SIZE


def subset(images: data.Images, count: int) -> data.Images:
    """`count` training images, and test images as many as are held out of them: one in five."""
    tests = max(1, count // 5)
    rows, test_rows = torch.arange(count) % len(images.train), torch.arange(tests) % len(images.test)
    return dataclasses.replace(
        images, train=images.train[rows], train_labels=images.train_labels[rows], test=images.test[test_rows],
        test_labels=images.test_labels[test_rows], fingerprint=f"{images.fingerprint}, {count}",
    )  # fmt: skip


def scaling(source: str, weights: str, device: str) -> list[dict]:
    """Seconds and peak memory of our runs against each of SCALING, each point in a process of its own."""
    points = [
        (approach, varied, value)
        for approach in APPROACHES
        for varied, values in SCALING.items()
        for value in (values[:3] if approach == "full_finetune" and varied in ("epochs", "seeds") else values)
    ]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["report_lib.training", "sklearn.datasets", "torchvision"])
    rows = []
    for approach, varied, value in tqdm(points, "how cost grows", unit="run"):
        pipe, other = context.Pipe()
        amounts = USUAL[approach] | {varied: value}
        process = context.Process(
            target=point, args=(other, source, weights, device, size_of(varied), approach, amounts)
        )
        process.start()
        other.close()  # so that a process that fails ends the wait
        seconds, memory = pipe.recv()
        process.join()
        rows.append(
            {
                "approach": approach,
                "varied": varied,
                "value": value,
                "image_size": size_of(varied),
                "seconds": seconds,
                "peak_memory_mib": memory,
            }
        )
    return rows


def point(
    pipe: Connection, source: str, weights_name: str, device: str, size: int, approach: str, amounts: dict
) -> None:
    """Trains `amounts` of images, epochs, seeds on a network, and sends what that took: seconds, and memory in MiB."""
    network = amounts["network"]
    few = subset(data.load(source, size), amounts["images"])
    weights = models.load_weights(weights_name if network == Config.network else "none", network)
    shared: dict = {"image_size": size, "network": network}
    with tempfile.TemporaryDirectory() as scratch:
        place = training.place(device, cache=scratch)
        warm = dataclasses.replace(place, cache=Path(scratch) / "warm")
        trained(preset(approach, epochs=1, batch_size=32, **shared), subset(few, 64), weights, warm)
        reset_peak_memory(place.device)
        clock = time.perf_counter()
        for seed in range(amounts["seeds"]):
            trained(preset(approach, epochs=amounts["epochs"], seed=seed, **shared), few, weights, place)
        pipe.send((time.perf_counter() - clock, peak_memory_mib(place.device)))
