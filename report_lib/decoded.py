"""The cache of decoded images: a folder for each source, which appears whole or not at all and is checked when read."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from report_lib.disk import reserved, sweep


class Arrays(NamedTuple):
    """A data set on the host: pictures uint8 (N, height, width, 3), labels int64 (N,) indices into `classes`."""

    name: str
    classes: list[str]
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def fingerprint(self) -> str:
        """sha256 of pictures, labels and class names."""
        sha = hashlib.sha256(json.dumps(self.classes).encode())
        for array in self[2:]:
            sha.update(str(array.shape).encode())
            for start in range(0, len(array), 4096):
                sha.update(np.ascontiguousarray(array[start : start + 4096]).data)
        return sha.hexdigest()


class Entry:
    """A cache folder in the making: invisible until `finish` renames it into place."""

    def __init__(self, cache: Path, name: str) -> None:
        self.final = cache / name
        sweep(cache, f".{name}-*")
        self.working = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        self.working.chmod(0o755)

    def array(self, part: str, shape: tuple[int, ...]) -> np.ndarray:
        return reserved(self.working / f"{part}.npy", np.uint8, shape)

    def finish(self, arrays: Arrays, left_out: int) -> Path:
        for array in (arrays.train, arrays.test):
            if isinstance(array, np.memmap):
                array.flush()
        meta = {
            "left_out": left_out,
            "classes": arrays.classes,
            "train_labels": arrays.train_labels.tolist(),
            "test_labels": arrays.test_labels.tolist(),
            "fingerprint": arrays.fingerprint(),
        }
        with (self.working / "meta.json").open("w", encoding="utf-8") as file:
            json.dump(meta, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            self.working.rename(self.final)
        except OSError:  # another process was first, and made the same
            if not self.final.is_dir():
                raise
            self.discard()
        return self.final

    def discard(self) -> None:
        shutil.rmtree(self.working, ignore_errors=True)


def cached(entry: Path, name: str) -> tuple[Arrays, str] | None:
    """What `entry` holds; None, and no entry, if there is none or it is not what was written."""
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        # Copy-on-write, since torch has no read-only tensors: a stray write could never reach the file.
        train, test = (np.load(entry / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in ("train", "test"))
        labels = [np.array(meta[f"{part}_labels"], np.int64) for part in ("train", "test")]
        if meta["left_out"]:
            name += f" ({meta['left_out']} undecodable images left out)"
        arrays = Arrays(name, meta["classes"], train, labels[0], test, labels[1])
        if arrays.fingerprint() == meta["fingerprint"]:
            return arrays, meta["fingerprint"]
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        pass
    print(f"the cached images in {entry} are damaged and are decoded anew", file=sys.stderr)
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}-damaged-", dir=entry.parent))
    with contextlib.suppress(OSError):  # gone meanwhile
        entry.rename(aside / entry.name)
    shutil.rmtree(aside, ignore_errors=True)
    return None
