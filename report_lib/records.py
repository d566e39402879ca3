"""What a finished run leaves on disk: plain files in one folder, there whole or not at all. Imports no torch.

<store>/<approach>-<recipe>-seed<n>-<hash>/   run.json  epochs.csv  predictions.npz
<store>/requests/<hash>.json                  which run last answered a request (see `recipe.request_key`)
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a node that only trains needs no pandas
    import pandas as pd

from report_lib.recipe import InputError, Recipe, file_sha256, request_key, source_hash


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; `info` is run.json."""

    path: Path
    info: dict

    @functools.cached_property
    def epochs(self) -> "pd.DataFrame":
        """One row an epoch: losses in nats, times in seconds."""
        import pandas as pd

        return pd.read_csv(self.path / "epochs.csv")

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
        with (working / "epochs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(epochs[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(epochs)
        np.savez_compressed(working / "predictions.npz", **arrays)  # type: ignore[arg-type]
        info = info | {"files": {name: file_sha256(working / name) for name in ("epochs.csv", "predictions.npz")}}
        text = json.dumps(info | {"sha256": _of(info)}, indent=1, allow_nan=False)
        (working / "run.json").write_text(text + "\n", encoding="utf-8")
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
    """Reads a finished run. Raises InputError if a file of it is not what was written."""
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if info.pop("sha256", None) != _of(info):
            raise ValueError("the checksum of run.json is another")
        for name, sha in info.pop("files").items():
            if file_sha256(path / name) != sha:
                raise ValueError(f"the checksum of {name} is another")
        return Run(path, info)
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise _damaged(path, error) from error


@contextlib.contextmanager
def alone(store: Path, name: str) -> Iterator[None]:
    """Within it, no other process on this store trains run `name`; waits, and says so, while one does.

    The system drops the lock of a process that dies. Where the store's file system has no locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX
        yield
        return
    store.mkdir(parents=True, exist_ok=True)
    path = store / f".{name}.lock"
    try:
        opened = path.open("w")
    except PermissionError:  # another user's, which can be waited for all the same
        opened = path.open()
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process trains {name}; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    with contextlib.suppress(OSError):
        if exists(store, name):  # whoever still waits for the lock finds the run, and trains nothing
            path.unlink()


def remember(store: Path, recipe: Recipe, name: str) -> None:
    """Notes that run `name` answers the request `recipe`, for readers that cannot look at data or weights."""
    note = store / "requests" / f"{request_key(recipe)}.json"
    text = json.dumps({"run": name}) + "\n"
    if not note.is_file() or note.read_bytes() != text.encode():  # a store may be shared read-only
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, text)


def requested(store: Path, recipes: Iterable[Recipe]) -> list[Run]:
    """The run that last answered each recipe. Raises InputError if one has not been run."""
    runs = []
    for recipe in recipes:
        note = store / "requests" / f"{request_key(recipe)}.json"
        try:
            answer = json.loads(note.read_text(encoding="utf-8"))["run"]
        except (OSError, ValueError, LookupError, TypeError):  # none, or one that has rotted
            raise InputError(
                f"the store {store} has no finished run of {recipe.approach}, recipe {recipe.recipe}, "
                f"seed {recipe.seed} with these parameters; run that approach's notebook first"
            ) from None
        run = load(store / str(answer))
        if run.info["provenance"]["code"] != source_hash():
            raise InputError(
                f"the run {run.path.name} was made before the code of report_lib changed; run the notebook of "
                f"{recipe.approach} again"
            )
        runs.append(run)
    return runs


def sweep(folder: Path, pattern: str, seconds: float = 86_400) -> None:
    """Removes what matches `pattern` in `folder` and was last touched so long ago: leftovers of killed processes."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if time.time() - path.stat().st_mtime >= seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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


def reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of that shape, mapped, whose blocks the disk has given for good: a page written to a full disk
    would otherwise kill the process. Raises InputError if there is no room."""
    values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate") and values.nbytes:
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                raise InputError(
                    f"cache is {str(path.parent.parent)!r}, whose disk lacks room for {values.nbytes / 2**20:,.0f} MiB "
                    f"({error.strerror}); make room, or name another folder in REPORT_CACHE"
                ) from error
    return values


def _of(info: dict) -> str:
    """sha256 of what run.json says beside it."""
    return hashlib.sha256(json.dumps(info, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"the record {path} cannot be read ({error}); remove that folder to train it again")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
