"""Records of runs that never ran, for tests of all that reads records."""

import json

import numpy as np

from report_lib import records, stats
from report_lib.recipe import source_hash

CLASSES = ["cat", "dog", "<script>alert(1)</script>", "a_b%c&d#$", "猫"]
IMAGES = 400


def record(store, recipe, accuracy, classes=CLASSES, images=IMAGES, confidence=3.0):
    """Writes a finished run of `recipe` that gets about `accuracy` of its test images right; returns its folder."""
    name = f"{recipe.approach}-{recipe.recipe}-{records.request_key(recipe)[:12]}"
    path = records.save(store, name, *content(recipe, accuracy, classes, images, confidence))
    records.remember(store, recipe, name)
    return path


def content(recipe, accuracy, classes=CLASSES, images=IMAGES, confidence=3.0):
    """(run.json, epochs, predictions) of a finished run of `recipe`."""
    rng = np.random.default_rng([recipe.seed, recipe.per_class, len(recipe.approach), int(1000 * accuracy)])
    count = len(classes)

    def predictions(number, seed):
        labels = np.arange(number) % count
        luck = np.random.default_rng(seed).random(number)  # images are as hard for every run
        guess = np.where(luck < accuracy, labels, (labels + 1 + rng.integers(0, count - 1, number)) % count)
        logits = rng.normal(0, 0.5, (number, count)).astype(np.float32)
        logits[np.arange(number), guess] += confidence
        return logits, labels

    test_logits, test_labels = predictions(images, 0)
    validation_logits, validation_labels = predictions(images // 2, 1)
    epochs = [
        {"epoch": e, "train_loss": 2 / e, "validation_loss": 1.5 / e, "validation_accuracy": accuracy - 0.1 / e,
         "train_seconds": 1.0, "validation_seconds": 0.1}
        for e in (1, 2, 3)
    ]  # fmt: skip
    per_class = recipe.per_class or 100
    info = {
        "recipe": dict(vars(recipe)),
        "data": {"name": "made up", "fingerprint": "f" * 64, "train": per_class * count * 4 // 5,
                 "validation": 0 if recipe.train_on_all else per_class * count // 5, "test": images,
                 "classes": list(classes), "stored_size": [8, 8]},
        "weights": {"name": "none", "sha256": None},
        "selected_epoch": 3, "selected_on": "test" if recipe.select_on_test else "validation",
        "validation_accuracy": accuracy - 0.03, "validation_loss": 0.5,
        "test_accuracy": float((test_logits.argmax(1) == test_labels).mean()),
        "test_loss": float(stats.cross_entropy(test_logits, test_labels).mean()),
        "train_seconds": 10.0 if recipe.approach == "linear_probe" else 100.0, "features_seconds": 5.0,
        "start_seconds": 0.0, "validation_seconds": 0.3, "test_seconds": 0.1, "images_per_second": 100.0,
        "parameters": 100, "trained_parameters": 10, "forward_flops": 10**9, "backward_flops": 2 * 10**9,
        "peak_memory_mib": 1000.0,
        "provenance": {"commit": "0" * 40, "dirty": False, "code": source_hash(), "command": "made up", "device": "cpu",
                       "threads": 1, "precision": "float32", "python": "3", "packages": {"torch": "2"},
                       "finished": "2026-01-01T00:00:00"},
    }  # fmt: skip
    arrays = {
        "test_logits": test_logits, "test_labels": test_labels, "validation_logits": validation_logits,
        "validation_labels": validation_labels, "validation_index": np.arange(len(validation_labels)),
    }  # fmt: skip
    if recipe.approach == "full_finetune":
        before = rng.normal(0, 1, (64, 3, 11, 11)).astype(np.float32)
        arrays |= {"filters_before": before, "filters_after": before * 1.1}
    return info, epochs, arrays


def rewrite(run, old, new):
    """Replaces text in a record's run.json, and signs it again, as a run on other data or another device would."""
    sign(run.path, json.loads((run.path / "run.json").read_text().replace(old, new)))


def sign(path, info):
    """Makes `info` the run.json of the record at `path`, with a checksum that holds."""
    info.pop("sha256", None)
    (path / "run.json").write_text(json.dumps(info | {"sha256": records._of(info)}))
