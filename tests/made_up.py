"""Records of runs that never ran, for tests of all that reads records."""

import json

import numpy as np

from report_lib.config import APPROACHES, resolve
from report_lib.evidence import stats
from report_lib.files import digest
from report_lib.runs import Run, Study, store

CLASSES = ["cat", "dog", "<script>alert(1)</script>", "a_b%c&d#$", "猫"]
IMAGES = 400
FINGERPRINT = "f" * 64
WEIGHTS = "e" * 64  # of a study whose parameter weights is not none, as it is if nothing is said


def study(folder, accuracy, classes=CLASSES, **parameters):
    """A study whose finished runs get about `accuracy` of the test images right: a number, or what a function says of
    (approach, kind, value), such as ("linear_probe", "budget", 10)."""
    path = folder / f"store{len(list(folder.iterdir()))}"
    settings = resolve(None, {"runs": str(path), "weights": "none"} | parameters)
    made = Study(settings, FINGERPRINT, None if settings["weights"] == "none" else WEIGHTS)
    for planned, config in made.configs():
        share = accuracy(planned.approach, planned.kind, planned.value) if callable(accuracy) else accuracy
        if not store.exists(path, made.name(config)):
            record(path, config, share, classes, name=made.name(config))
    return made


def again(study):
    """The same study, read anew."""
    return Study(study.settings, study.data_sha, study.weights_sha)


def record(path, config, accuracy, classes=CLASSES, images=IMAGES, confidence=3.0, name=None):
    """Writes a finished run of `config` into the store `path`; returns its folder."""
    name = name or f"{config.approach}-{config.preset}-seed{config.seed}-{digest(vars(config))[:12]}"
    return store.save(path, name, *content(config, accuracy, classes, images, confidence))


def content(config, accuracy, classes=CLASSES, images=IMAGES, confidence=3.0):
    """(run.json, epochs, predictions) of a finished run of `config`."""
    approach, count = list(APPROACHES).index(config.approach), len(classes)
    rng = np.random.default_rng([config.seed, config.per_class, approach, int(1000 * accuracy)])

    def predictions(number, seed):
        labels = np.arange(number) % count
        luck = np.random.default_rng(seed).random(number)  # images are as hard for every run
        guess = np.where(luck < accuracy, labels, (labels + 1 + rng.integers(0, count - 1, number)) % count)
        logits = rng.normal(0, 0.5, (number, count)).astype(np.float32)
        logits[np.arange(number), guess] += confidence
        return logits, labels

    per_class, everything = config.per_class or 100, config.trains == "all"
    held_out = 0 if config.train_on_all else per_class * count // 5
    test_logits, test_labels = predictions(images, 0)
    tested = float((test_logits.argmax(1) == test_labels).mean())
    if config.select_on_test:  # the test images take the place of those for validation
        validation_logits, validation_labels = test_logits, test_labels
    else:
        validation_logits, validation_labels = predictions(held_out, [1, config.seed])
    best = float((validation_logits.argmax(1) == validation_labels).mean())
    features = 0.0 if everything else 5.0
    steps = 100.0 if everything else 10.0 * (1 + approach) - features  # seconds of all three epochs
    epochs = [
        {"epoch": e, "train_loss": 2 / e, "validation_loss": 1.5 / e, "validation_accuracy": best - 0.1 / e + 0.1 / 3,
         "train_seconds": share * steps, "validation_seconds": 0.1}
        for e, share in ((1, 0.3), (2, 0.3), (3, 0.4))
    ]  # fmt: skip
    info = {
        "config": dict(vars(config)), "modified": None,
        "data": {"name": "made up", "fingerprint": FINGERPRINT, "train": per_class * count - held_out,
                 "validation": held_out, "test": images,
                 "classes": list(classes), "stored_size": [8, 8], "facts": {}},
        "weights": {"name": config.weights, "sha256": None if config.weights == "none" else WEIGHTS},
        "network": {"name": "AlexNet", "key": "alexnet", "features": 4096},
        "selected_epoch": 3, "selected_on": "test" if config.select_on_test else "validation",
        "validation_accuracy": epochs[-1]["validation_accuracy"], "validation_loss": 0.5,
        "test_accuracy": tested,
        "test_loss": float(stats.cross_entropy(test_logits, test_labels).mean()),
        "train_seconds": features + sum(e["train_seconds"] for e in epochs), "features_seconds": features,
        "start_seconds": 0.0, "validation_seconds": 0.3, "test_seconds": 0.1,
        "parameters": 100, "trained_parameters": 100 if everything else 10, "forward_flops": 10**9,
        "backward_flops": 2 * 10**9 if everything else 10**6, "peak_memory_mib": 1000.0,
        "layer_changes": {"features.0": 0.01, "classifier.1": 0.1} if everything and config.weights != "none" else {},
        "provenance": {"started": "2026-01-01T00:00:00", "finished": "2026-01-01T00:00:10", "commit": "0" * 40,
                       "dirty": False, "code": "c" * 64, "command": "made up", "device": "cpu", "driver": None,
                       "machine": "none", "cpu_capability": "AVX2", "threads": 1, "precision": "float32",
                       "python": "3", "packages": {"torch": "2"}, "others_share": None},
    }  # fmt: skip
    arrays = {
        "test_logits": test_logits, "test_labels": test_labels, "validation_logits": validation_logits,
        "validation_labels": validation_labels, "validation_index": np.arange(len(validation_labels)),
    }  # fmt: skip
    return info, epochs, arrays


def rewrite(run, old, new):
    """Replaces text in a record's run.json, and signs it again, as a run on other data or another device would."""
    sign(run.path, json.loads((run.path / "run.json").read_text().replace(old, new)))


def change(run, **fields):
    """A run with other fields of run.json, read from nowhere."""
    return Run(run.path.with_name(f"{run.path.name}-{digest(repr(fields))[:6]}"), run.info | fields)


def sign(path, info):
    """Makes `info` the run.json of the record at `path`, with a checksum that holds."""
    info.pop("sha256", None)
    (path / "run.json").write_text(json.dumps(info | {"sha256": digest(info)}))
