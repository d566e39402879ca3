"""What a finished run leaves on disk: plain files in one folder, there whole or not at all.

<store>/<approach>-<preset>-seed<n>-<hash>/   run.json  epochs.csv  predictions.npz  and, if kept, weights.safetensors
"""

import csv
import dataclasses
import functools
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from report_lib.config import Config
from report_lib.files import InputError, digest, file_sha256, put_aside, sync

NUMBER = (int, float)

# What every reader of a record finds in its run.json, and of what type.
FIELDS: dict[str, dict] = {
    "": {
        **dict.fromkeys(("config", "data", "weights", "network", "provenance"), dict),
        **dict.fromkeys(("selected_epoch", "parameters", "trained_parameters"), int),
        "selected_on": str,
        "modified": (str, type(None)),
        **dict.fromkeys(
            ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_seconds",
             "features_seconds", "start_seconds", "validation_seconds", "test_seconds", "images_per_second",
             "peak_memory_mib", "forward_flops", "backward_flops"),
            NUMBER,
        ),
    },
    "data": {"name": str, "fingerprint": str, "train": int, "validation": int, "test": int, "classes": list,
             "stored_size": list, "facts": dict},
    "weights": {"name": str, "sha256": (str, type(None))},
    "network": {"name": str, "key": str, "features": int},
    "provenance": {"finished": str, "commit": (str, type(None)), "code": str, "device": str, "threads": int,
                   "precision": str, "python": str, "packages": dict, "command": str},
}  # fmt: skip
EPOCH = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "train_seconds", "validation_seconds")
ARRAYS = ("test_logits", "test_labels", "validation_logits", "validation_labels", "validation_index")
WEIGHTS = "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, equal to another one at the same path; `info` is run.json."""

    path: Path
    info: dict = dataclasses.field(compare=False)

    @functools.cached_property
    def config(self) -> Config:
        try:
            return Config(**self.info["config"])
        except (TypeError, InputError) as error:
            raise InputError(f"the record {self.path} has a config that cannot be used here: {error}") from error

    @property
    def approach(self) -> str:
        return self.info["config"]["approach"]

    @property
    def preset(self) -> str:
        return self.info["config"]["preset"]

    @property
    def seed(self) -> int:
        return self.info["config"]["seed"]

    @property
    def classes(self) -> list[str]:
        return self.info["data"]["classes"]

    @functools.cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch: losses in nats, times in seconds."""
        try:
            epochs = pd.read_csv(self.path / "epochs.csv")
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from error
        _have(self.path, "epochs.csv", EPOCH, epochs.columns)
        return epochs

    @functools.cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """Float32 logits (N, classes) and int64 labels (N,) of `test` and `validation`; `validation_index` too."""
        try:
            with np.load(self.path / "predictions.npz", allow_pickle=False) as arrays:
                stored = dict(arrays)
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, error) from error
        _have(self.path, "predictions.npz", ARRAYS, stored)
        return stored

    def tensors(self) -> dict[str, Tensor] | None:
        """The trained tensors by their names in the network, or None where the study did not keep them."""
        path = self.path / WEIGHTS
        if WEIGHTS not in self.info["files"]:
            return None
        try:
            if file_sha256(path) != self.info["files"][WEIGHTS]:
                raise ValueError(f"the checksum of {WEIGHTS} is another")
            return load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise _damaged(self.path, error) from error


def save(
    store: Path,
    name: str,
    info: dict,
    epochs: list[dict],
    arrays: Mapping[str, np.ndarray],
    tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes a run under a temporary name, syncs it to disk and renames it into place; returns its folder."""
    store.mkdir(parents=True, exist_ok=True)
    final = store / name
    working = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=store))
    try:
        working.chmod(0o755)  # mkdtemp's 0700 would hide the run from others who share the store
        with (working / "epochs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(epochs[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(epochs)
        np.savez_compressed(working / "predictions.npz", **arrays)  # type: ignore[arg-type]
        if tensors is not None:
            save_file({name: value.contiguous() for name, value in tensors.items()}, working / WEIGHTS)
        info = info | {"files": {file.name: file_sha256(file) for file in sorted(working.iterdir())}}
        text = json.dumps(info | {"sha256": digest(info)}, indent=1, allow_nan=False)
        (working / "run.json").write_text(text + "\n", encoding="utf-8")
        for written in (*working.iterdir(), working):
            sync(written)
        try:
            working.rename(final)
        except OSError:
            if not exists(store, name):  # else another process finished the same run first
                raise
        sync(store)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return final


def exists(store: Path, name: str) -> bool:
    """Whether the store has a finished run of that name."""
    return (store / name / "run.json").is_file()


def load(path: Path) -> Run:
    """Reads a finished run. Raises InputError if a file of it is not what was written, or does not say enough."""
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if info.pop("sha256", None) != digest(info):
            raise ValueError("the checksum of run.json is another")
        for name in ("epochs.csv", "predictions.npz"):
            if file_sha256(path / name) != info["files"][name]:
                raise ValueError(f"the checksum of {name} is another")
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    for part, fields in FIELDS.items():
        inside = info[part] if part else info
        _have(path, f"{part} in run.json".strip(), fields, inside)
        for name, kind in fields.items():
            if not isinstance(inside[name], kind) or isinstance(inside[name], bool):
                raise _damaged(path, f"{name} in run.json is of another type")
    _have(path, "config in run.json", ("approach", "preset", "seed", "data", "weights"), info["config"])
    return Run(path, info)


def clear_way(store: Path, name: str) -> None:
    """Moves aside what has a run's name but is none, so that the run can be stored when it has been trained.

    Raises InputError if it cannot be moved.
    """
    final = store / name
    if not os.path.lexists(final) or exists(store, name):
        return
    try:
        aside = put_aside(final)
    except OSError as error:
        raise InputError(
            f"runs is {str(store)!r}, where {name} is no finished run and cannot be moved away ({error.strerror}); "
            "remove it"
        ) from error
    print(f"{final} is no finished run and is now {aside.name}; this run starts anew", file=sys.stderr)


def _have(path: Path, what: str, names: Iterable[str], inside: Iterable[str]) -> None:
    """Raises InputError if `inside`, which is `what` of the record at `path`, lacks one of `names`."""
    if lacking := [name for name in names if name not in inside]:
        raise _damaged(path, f"{what} lacks {lacking[0]}")


def _damaged(path: Path, error: Exception | str) -> InputError:
    reason = "run.json is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return InputError(
        f"the record {path} cannot be read ({reason}); remove that folder to train it again, or use another store"
    )
