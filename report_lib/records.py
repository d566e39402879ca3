"""What a finished run leaves on disk: plain files in one folder, there whole or not at all. Imports no torch.

<store>/<approach>-<recipe>-seed<n>-<hash>/   run.json  epochs.csv  predictions.npz
<store>/requests/<hash>.json                  which run last answered a request (see `recipe.request_key`)
"""

import csv
import dataclasses
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from report_lib.recipe import InputError, Recipe, request_key, source_hash


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: `info` is run.json; `epochs` has one row an epoch, losses in nats, times in seconds."""

    path: Path
    info: dict
    epochs: pd.DataFrame

    @property
    def approach(self) -> str:
        return self.info["recipe"]["approach"]

    @property
    def seed(self) -> int:
        return self.info["recipe"]["seed"]

    @property
    def classes(self) -> list[str]:
        return self.info["data"]["classes"]

    def predictions(self) -> dict[str, np.ndarray]:
        """Float32 logits (N, classes) and int64 labels (N,) of `test` and `validation`; `validation_index` too."""
        try:
            with np.load(self.path / "predictions.npz", allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, error) from error


def save(store: Path, name: str, info: dict, epochs: list[dict], arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes a run under a temporary name, syncs it to disk and renames it into place; returns its folder."""
    store.mkdir(parents=True, exist_ok=True)
    final = store / name
    working = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=store))
    try:
        working.chmod(0o755)  # mkdtemp's 0700 would hide the run from others who share the store
        (working / "run.json").write_text(json.dumps(info, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        with (working / "epochs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(epochs[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(epochs)
        np.savez_compressed(working / "predictions.npz", **arrays)  # type: ignore[arg-type]
        for written in (*working.iterdir(), working):
            _sync(written)
        try:
            working.rename(final)
        except OSError:
            if not exists(store, name):  # else another process finished the same run first
                raise
        _sync(store)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return final


def exists(store: Path, name: str) -> bool:
    return (store / name / "run.json").is_file()


def load(path: Path) -> Run:
    """Reads a finished run. Raises InputError if its files are damaged."""
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        return Run(path, info, pd.read_csv(path / "epochs.csv"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def remember(store: Path, recipe: Recipe, name: str) -> None:
    """Notes that run `name` answers the request `recipe`, for readers that cannot look at data or weights."""
    note = store / "requests" / f"{request_key(recipe)}.json"
    text = json.dumps({"run": name}) + "\n"
    if not note.is_file() or note.read_text(encoding="utf-8") != text:  # a store may be shared read-only
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, text)


def requested(store: Path, recipes: Iterable[Recipe]) -> list[Run]:
    """The run that last answered each recipe. Raises InputError if one has not been run."""
    runs = []
    for recipe in recipes:
        note = store / "requests" / f"{request_key(recipe)}.json"
        if not note.is_file():
            raise InputError(
                f"the store {store} has no finished run of {recipe.approach}, recipe {recipe.recipe}, "
                f"seed {recipe.seed} with these parameters; run that approach's notebook first"
            )
        run = load(store / json.loads(note.read_text(encoding="utf-8"))["run"])
        if run.info["provenance"]["code"] != source_hash():
            raise InputError(
                f"the run {run.path.name} was made before the code of report_lib changed; run the notebook of "
                f"{recipe.approach} again"
            )
        runs.append(run)
    return runs


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step, synced to disk."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"the record {path} cannot be read ({error}); remove that folder to train it again")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
