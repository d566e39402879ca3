"""What a finished run leaves on disk: plain files in one folder, there whole or not at all.

<store>/<approach>-<preset>-seed<n>-<hash>/   run.json  epochs.csv  predictions.npz  and, if kept, weights.safetensors
"""

import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from report_lib.config import Config
from report_lib.files import InputError, digest, file_sha256, new_folder, sync

# What every reader of a record finds in its run.json.
FIELDS = {
    "": ("config", "data", "weights", "network", "provenance", "selected_epoch", "parameters", "trained_parameters",
         "selected_on", "modified", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss",
         "train_seconds", "features_seconds", "start_seconds", "validation_seconds", "test_seconds",
         "peak_memory_mib", "forward_flops", "backward_flops"),
    "config": ("approach", "preset", "seed", "data", "weights"),
    "data": ("name", "fingerprint", "train", "validation", "test", "classes", "stored_size", "facts"),
    "weights": ("name", "sha256"),
    "network": ("name", "key", "features"),
    "provenance": ("finished", "commit", "code", "device", "threads", "precision", "python", "packages", "command"),
}  # fmt: skip
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
        return pd.read_csv(self.path / "epochs.csv")

    @functools.cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """Float32 logits (N, classes) and int64 labels (N,) of `test` and `validation`; `validation_index` too."""
        with np.load(self.path / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def tensors(self) -> dict[str, Tensor] | None:
        """The trained tensors by their names in the network, or None where the study did not keep them."""
        path = self.path / WEIGHTS
        if WEIGHTS not in self.info["files"]:
            return None
        if not path.exists():
            raise InputError(f"the record {self.path} lies here without its {WEIGHTS}; train it again in another store")
        try:
            if file_sha256(path) != self.info["files"][WEIGHTS]:
                raise ValueError(f"the checksum of {WEIGHTS} is another")
            return load_file(path)
        except (OSError, ValueError) as error:
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
    with new_folder(store / name) as working:
        pd.DataFrame(epochs).to_csv(working / "epochs.csv", index=False, lineterminator="\n")
        np.savez_compressed(working / "predictions.npz", **arrays)  # type: ignore[arg-type]
        if tensors is not None:
            save_file({name: value.contiguous() for name, value in tensors.items()}, working / WEIGHTS)
        info = info | {"files": {file.name: file_sha256(file) for file in sorted(working.iterdir())}}
        text = json.dumps(info | {"sha256": digest(info)}, indent=1, allow_nan=False)
        (working / "run.json").write_text(text + "\n", encoding="utf-8")
        for written in (*working.iterdir(), working):
            sync(written)
    sync(store)
    return store / name


def exists(store: Path, name: str) -> bool:
    """Whether the store has a finished run of that name."""
    return (store / name / "run.json").is_file()


def load(path: Path) -> Run:
    """Reads a finished run. Raises InputError if a file of it is not what was written, or does not say enough."""
    if not os.path.lexists(path / "run.json"):
        inside = next((f", such as {found.parent}" for found in sorted(path.glob("*/run.json"))), "")
        raise InputError(f"{path} is no record of a run, for it holds no run.json; name the folder of one{inside}")
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if info.pop("sha256", None) != digest(info):
            raise ValueError("the checksum of run.json is another")
        for name in ("epochs.csv", "predictions.npz"):
            if file_sha256(path / name) != info["files"][name]:
                raise ValueError(f"the checksum of {name} is another")
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise _damaged(path, error) from error
    for part, fields in FIELDS.items():
        if lacking := [name for name in fields if name not in (info[part] if part else info)]:
            raise _damaged(path, f"{part} in run.json lacks {lacking[0]}".strip())
    return Run(path, info)


def clear_way(store: Path, name: str) -> None:
    """Moves aside what has a run's name but is none, so that the run can be stored when it has been trained."""
    final = store / name
    if os.path.lexists(final) and not exists(store, name):
        aside = final.rename(f"{final}.damaged-{time.time_ns()}")
        print(f"{final} is no finished run and is now {aside.name}; this run starts anew", file=sys.stderr)


def _damaged(path: Path, error: Exception | str) -> InputError:
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):  # it may be whole all the same
        return InputError(f"the record {path} cannot be read ({reason})")
    return InputError(
        f"the record {path} cannot be read ({reason}); remove that folder to train it again, or use another store"
    )
