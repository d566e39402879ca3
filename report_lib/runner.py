"""`run`: the finished run of a recipe, trained only where the run store lacks it.

What decides a run's outcome is in `train`, whose source names the record; this module may change without making
finished runs stale.
"""

import datetime
import time
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from report_lib import data, disk, machine, model, records, train
from report_lib.features import cache_limit
from report_lib.recipe import InputError, Recipe, check_writable, digest, folder, settings, source_hash


def run(
    recipe: Recipe,
    runs: str = "",
    cache: str = "",
    device: str = "auto",
    watch: train.Watch = train.unwatched,
    features: str = "",
) -> records.Run:
    """The finished run of `recipe`: read from the store `runs`, or trained now and stored there.

    While it trains, `watch` is called after each epoch with the recipe and the epochs so far. Decoded images are kept
    in the folder `cache`, frozen features in `features`; empty: there too.

    Raises InputError if the recipe, its data or its weights cannot be used, if the store cannot be written or holds a
    damaged record of this run, if the device lacks the memory, or (Diverged) if a loss is no number.
    """
    store = folder(runs, "REPORT_RUNS", ".runs")
    chosen_device = machine.pick_device(device)
    images = data.load(recipe.data, recipe.image_size, cache)
    data.check(images, recipe)
    weights = model.load_weights(recipe.weights)
    name = run_name(recipe, images, weights)
    if not records.exists(store, name):
        check_writable(store, "runs")  # now, not after hours of training
        precision = machine.pick_precision(recipe.precision, chosen_device)
        cache_limit()  # what is wrong with it is said now, though it is used much later
        kept = folder(features or cache, "REPORT_CACHE", ".cache")
        setting = train.Setting(images, weights, chosen_device, precision, kept)
        with records.alone(store, name):
            if not records.exists(store, name):  # as it may since another process has finished it
                records.clear_way(store, name)
                make(recipe, setting, store, name, watch)
    else:  # its checkpoint stays behind where a run was killed after its record was there
        disk.sweep(store, f".{name}-*.checkpoint*", 0)
    finished = records.load(store / name)
    contents = (finished.info["data"]["fingerprint"], finished.info["weights"]["sha256"])
    if not records.answers(finished, recipe) or contents != (images.fingerprint, weights.sha256):
        raise InputError(
            f"the record {finished.path} is that of another recipe; remove that folder to train it again, or use "
            "another store"
        )
    records.remember(store, recipe, name)
    return finished


def run_name(recipe: Recipe, images: data.Images, weights: model.Weights) -> str:
    """Folder of a run: approach, recipe, seed, and a hash of all that determines it (but not the device)."""
    fields = settings(recipe) | {"data": images.fingerprint, "weights": weights.sha256, "code": source_hash()}
    return f"{recipe.approach}-{recipe.recipe}-seed{recipe.seed}-{digest(fields)[:12]}"


def make(recipe: Recipe, setting: train.Setting, store: Path, name: str, watch: train.Watch = train.unwatched) -> Path:
    """Trains one run, tests its selected epoch once, and stores the record, whose folder it returns.

    Raises InputError if the device lacks the memory or the store the room, and Diverged if a loss is no number.
    """
    started = datetime.datetime.now(datetime.UTC)
    made = machine.provenance(setting.device, setting.precision, started)  # now: the code may change meanwhile
    machine.reset_peak_memory(setting.device)
    # Another device or precision goes on with its own bits only.
    checkpoint = store / f".{name}-{machine.where(setting.device)}-{setting.precision}.checkpoint"
    try:
        adapted = train.adapt(recipe, setting, checkpoint, watch)
        clock = time.perf_counter()
        test_logits = train.test(adapted, recipe, setting)
        test_seconds = time.perf_counter() - clock
    except RuntimeError as error:
        if not machine.lacks_memory(error):
            raise
        half = recipe.batch_size // 2
        way = f"try BATCH={half}, half of it, or" if half else "no batch is smaller, so try"
        where = machine.device_name(setting.device)
        raise InputError(
            f"batch_size is {recipe.batch_size}, for which {where} lacks the memory; {way} a smaller SIZE"
        ) from error
    info, arrays = described(adapted, test_logits, recipe, setting)
    train.check_finite(info["test_loss"], "test", info["selected_epoch"], recipe)
    info |= {
        "test_seconds": test_seconds,
        "peak_memory_mib": machine.peak_memory_mib(setting.device),
        "provenance": made | {"finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
    }
    try:
        path = records.save(store, name, info, adapted.history.epochs, arrays)
    except OSError as error:
        raise InputError(
            f"runs is {str(store)!r}, where the record of this run cannot be written ({error.strerror or error}); make "
            "room or name another store, and run it again: slow epochs are kept in its checkpoint"
        ) from error
    disk.sweep(store, f".{name}-*", 0)  # its checkpoint, and what killed predecessors left half-written
    return path


def described(adapted: train.Adapted, test_logits: Tensor, recipe: Recipe, setting: train.Setting) -> tuple[dict, dict]:
    """(what run.json, what predictions.npz says of a finished run)."""
    images, net, history, validation = setting.images, adapted.net, adapted.history, adapted.validation
    test_loss, test_accuracy = train.score(test_logits, images.test_labels)
    train_seconds = (
        adapted.start_seconds + adapted.features_seconds + sum(epoch["train_seconds"] for epoch in history.epochs)
    )
    best = history.epochs[history.selected - 1]
    forward, backward = model.flops(net, recipe.image_size)  # type: ignore[arg-type]
    info = {
        "recipe": asdict(recipe),
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "train": len(adapted.training.index),
            "validation": len(data.split(images.train_labels, recipe)[1]),
            "test": len(images.test),
            "classes": list(images.classes),
            "stored_size": list(images.train.shape[1:3]),
        },
        "weights": {"name": setting.weights.name, "sha256": setting.weights.sha256},
        "selected_epoch": history.selected,
        "selected_on": "test" if recipe.select_on_test else "validation",
        "validation_accuracy": best["validation_accuracy"],
        "validation_loss": best["validation_loss"],
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "train_seconds": train_seconds,
        "features_seconds": adapted.features_seconds,
        "start_seconds": adapted.start_seconds,
        "validation_seconds": adapted.validation_features_seconds
        + sum(epoch["validation_seconds"] for epoch in history.epochs),
        "images_per_second": len(adapted.training.index) * recipe.epochs / train_seconds,
        "parameters": sum(p.numel() for p in net.parameters()),
        "trained_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "forward_flops": forward,
        "backward_flops": backward,
    }
    arrays = {
        "test_logits": test_logits.numpy(),
        "test_labels": images.test_labels.numpy(),
        "validation_logits": history.validation_logits.numpy(),
        "validation_labels": validation.labels[validation.index].cpu().numpy(),
        "validation_index": validation.index.cpu().numpy(),
    }
    if recipe.approach == "full_finetune":
        filters_after = net.features[0].weight.detach().float().cpu()  # type: ignore[index, union-attr]
        arrays |= {"filters_before": adapted.filters_before.numpy(), "filters_after": filters_after.numpy()}
    return info, arrays
