"""What a finished run leaves on disk: plain files in one folder, there whole or not at all. Imports no torch.

<store>/<approach>-<recipe>-seed<n>-<hash>/   run.json  epochs.csv  predictions.npz
<store>/requests/<hash>.json                  which run last answered a request (see `recipe.request_key`)
"""

import contextlib
import csv
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a node that only trains needs no pandas
    import pandas as pd

from report_lib.disk import put_aside, sync, write_whole
from report_lib.recipe import InputError, Recipe, file_sha256, request_key, source_hash

NUMBER = (int, float)

# What every reader of a record finds in its run.json, and of what type.
FIELDS: dict[str, dict] = {
    "": {
        **dict.fromkeys(("recipe", "data", "weights", "provenance"), dict),
        **dict.fromkeys(("selected_epoch", "parameters", "trained_parameters"), int),
        "selected_on": str,
        **dict.fromkeys(
            ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_seconds",
             "features_seconds", "start_seconds", "validation_seconds", "test_seconds", "images_per_second",
             "peak_memory_mib", "forward_flops", "backward_flops"),
            NUMBER,
        ),
    },
    "recipe": {**dict.fromkeys(("approach", "recipe", "data", "weights"), str), "seed": int, "image_size": int},
    "data": {"name": str, "fingerprint": str, "train": int, "validation": int, "test": int, "classes": list,
             "stored_size": list},
    "weights": {"name": str, "sha256": (str, type(None))},
    "provenance": {"finished": str, "commit": (str, type(None)), "code": str, "device": str, "threads": int,
                   "precision": str, "python": str, "packages": dict, "command": str},
}  # fmt: skip
EPOCH = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "train_seconds")
ARRAYS = ("test_logits", "test_labels", "validation_logits", "validation_labels", "validation_index")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; `info` is run.json."""

    path: Path
    info: dict

    @functools.cached_property
    def epochs(self) -> "pd.DataFrame":
        """One row an epoch: losses in nats, times in seconds."""
        import pandas as pd

        try:
            epochs = pd.read_csv(self.path / "epochs.csv")
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from error
        _have(self.path, "epochs.csv", EPOCH, epochs.columns)
        return epochs

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
                found = dict(arrays)
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, error) from error
        _have(self.path, "predictions.npz", ARRAYS, found)
        return found


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
        if info.pop("sha256", None) != _of(info):
            raise ValueError("the checksum of run.json is another")
        files = info.pop("files")
        for name in ("epochs.csv", "predictions.npz"):
            if file_sha256(path / name) != files[name]:
                raise ValueError(f"the checksum of {name} is another")
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    for part, fields in FIELDS.items():
        found = info[part] if part else info
        _have(path, f"{part} in run.json".strip(), fields, found)
        for name, kind in fields.items():
            if not isinstance(found[name], kind) or isinstance(found[name], bool):
                raise _damaged(path, f"{name} in run.json is of another type")
    return Run(path, info)


def answers(run: Run, recipe: Recipe) -> bool:
    """Whether `run` is one of `recipe`, wherever data and weights lay when it was made: their contents count."""
    made, asked = run.info["recipe"], dataclasses.asdict(recipe)
    where = {"data": asked["data"], "weights": asked["weights"]}
    return made.keys() == asked.keys() and made | where == asked


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


@contextlib.contextmanager
def alone(store: Path, name: str) -> Iterator[None]:
    """Within it, no other process on this store trains run `name`; waits, and says so, while one does.

    The system drops the lock of a process that dies. Where the store's file system has no locks, nothing is held.
    Raises InputError if what has the name of the lock is no plain file.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX
        yield
        return
    store.mkdir(parents=True, exist_ok=True)
    path = store / f".{name}.lock"
    with os.fdopen(_opened(path), "rb") as file:
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


def _opened(path: Path) -> int:
    """A handle of the lock file at `path`, which is made if need be; what is there already is never changed."""
    careful = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # neither another file's content nor a pipe's other end
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o666)
        except PermissionError:  # another user's, which can be waited for all the same
            handle = os.open(path, os.O_RDONLY | careful)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise
    raise InputError(f"the lock {path} is no plain file; remove it")


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
        name = _noted(store / "requests" / f"{request_key(recipe)}.json")
        run = load(store / name) if name else None
        if run is None or not answers(run, recipe):
            raise InputError(
                f"the store {store} has no finished run of {recipe.approach}, recipe {recipe.recipe}, "
                f"seed {recipe.seed} with these parameters; run that approach's notebook first"
            )
        if run.info["provenance"]["code"] != source_hash():
            raise InputError(
                f"the run {run.path.name} was made before the code of report_lib changed; run the notebook of "
                f"{recipe.approach} again"
            )
        runs.append(run)
    return runs


def _noted(note: Path) -> str | None:
    """The finished run that a note names; None if there is no note, or it has rotted or leads elsewhere."""
    try:
        name = json.loads(note.read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    plain = isinstance(name, str) and name == os.path.basename(name) and not name.startswith(".")
    return name if plain and exists(note.parents[1], name) else None


def _of(info: dict) -> str:
    """sha256 of what run.json says beside it."""
    return hashlib.sha256(json.dumps(info, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _have(path: Path, what: str, names: Iterable[str], found: Iterable[str]) -> None:
    """Raises InputError if `found`, `what` of the record at `path`, lacks one of `names`."""
    if lacking := [name for name in names if name not in found]:
        raise _damaged(path, f"{what} lacks {lacking[0]}")


def _damaged(path: Path, error: Exception | str) -> InputError:
    said = "run.json is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return InputError(
        f"the record {path} cannot be read ({said}); remove that folder to train it again, or use another store"
    )
