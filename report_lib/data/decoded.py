"""The cache of what is costly to make: a folder each, which appears whole or not at all, checked when read, bounded."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from report_lib.data.tensors import Images
from report_lib.files import InputError, digest, new_folder, reserved, shown, sweep, write_whole

PARTS = ("train", "test")


def assemble(name: str, classes: list[str], pixels: dict, labels: dict, facts: dict | None = None) -> Images:
    """A data set from arrays by part: pixels uint8 (N, h, w, 3) and labels int64 (N,)."""
    facts = facts or {"left_out": {}, "copies": count_copies(pixels), "range": None, "notes": []}
    sha = hashlib.sha256(json.dumps(classes).encode())
    for array in (pixels["train"], labels["train"], pixels["test"], labels["test"]):
        sha.update(str(array.shape).encode())
        for start in range(0, len(array), 4096):
            sha.update(np.ascontiguousarray(array[start : start + 4096]).data)
    train, train_labels, test, test_labels = (torch.from_numpy(kind[p]) for p in PARTS for kind in (pixels, labels))
    return Images(name, tuple(classes), train, train_labels, test, test_labels, sha.hexdigest(), facts)


def count_copies(pixels: dict) -> int:
    """How many test images are exact copies of training images."""
    train, test = ([hashlib.blake2b(np.ascontiguousarray(row).data).digest() for row in pixels[p]] for p in PARTS)
    return sum(map(set(train).__contains__, test))


@contextlib.contextmanager
def writing(final: Path, counts: dict[str, int], shape: tuple[int, int]) -> Iterator[dict[str, np.ndarray]]:
    """Mapped arrays (N, h, w, 3) by part, which become the entry `final` of the cache when they and `finish` are
    through. Raises InputError if there is no room for them."""
    make_room(final.parent, sum(counts.values()) * shape[0] * shape[1] * 3)
    with new_folder(final) as working:
        yield {part: reserved(working / f"{part}.npy", np.uint8, (counts[part], *shape, 3)) for part in PARTS}


def finish(pixels: dict, classes: list[str], labels: dict[str, np.ndarray], facts: dict | None = None) -> dict:
    """Writes what an entry in the making holds beside its pixels; returns the facts of its images."""
    for array in pixels.values():
        array.flush()
    images = assemble("", classes, pixels, labels)
    images.facts.update(facts or {})
    meta = {"classes": classes, "labels": {part: labels[part].tolist() for part in PARTS}, "facts": images.facts,
            "fingerprint": images.fingerprint}  # fmt: skip
    write_whole(Path(pixels["train"].filename).with_name("meta.json"), json.dumps(meta | {"sha256": digest(meta)}))
    return images.facts


def cached(entry: Path, name: str) -> Images | None:
    """What `entry` holds; None, and no entry, if there is none or it is not what was written."""
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        # Copy-on-write, since torch has no read-only tensors: a stray write could never reach the file.
        pixels = {part: np.load(entry / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in PARTS}
        labels = {part: np.array(meta["labels"][part], np.int64) for part in PARTS}
        images = assemble(name, meta["classes"], pixels, labels, meta["facts"])
        if meta.pop("sha256") == digest(meta) and images.fingerprint == meta["fingerprint"]:
            with contextlib.suppress(OSError):  # another user's
                os.utime(entry)  # what was used last is forgotten last
            return images
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        pass
    print(f"the cached images in {entry} are damaged and are decoded anew", file=sys.stderr)
    shutil.rmtree(entry, ignore_errors=True)
    return None


# --- bounds ----------------------------------------------------------------------------------------------------


def cache_limit() -> float:
    """Bytes that the cache may take: $REPORT_CACHE_GIB, 16 if not given. Raises InputError if that is no size."""
    given = os.environ.get("REPORT_CACHE_GIB") or "16"
    try:
        limit = float(given) * 2**30
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise InputError(f"REPORT_CACHE_GIB is {shown(given)}; allowed is a number of GiB from 0, such as 16")
    return limit


def make_room(cache: Path, size: int) -> None:
    """Removes the decoded images and frozen features that were used longest ago until `size` bytes more stay within the
    limit, and what killed processes left.

    Raises InputError if the disk has no room for them even so.
    """
    limit, entries = cache_limit(), []
    for kind in ("decoded-*", "features-*"):
        sweep(cache, f".{kind}")
        for entry in (*cache.glob(kind), *cache.glob(f".{kind}")):
            with contextlib.suppress(OSError):  # gone meanwhile
                entries.append((entry.stat().st_mtime, sum(file.stat().st_size for file in entry.iterdir()), entry))
    total = size + sum(held for _, held, _ in entries)
    for _, held, entry in sorted(entries):
        if total > limit and not entry.name.startswith("."):  # those are in the making
            shutil.rmtree(entry, ignore_errors=True)  # whoever has it mapped keeps it: its pages outlive its name
        total -= held
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < size:
        raise InputError(
            f"cache is {str(cache)!r}, whose disk has no room for {size / 2**20:,.0f} MiB more; make room, or name "
            "another folder in REPORT_CACHE"
        )


# --- fingerprints, without the images --------------------------------------------------------------------------


def remember(cache: Path, key: str, fingerprint: str) -> None:
    """Notes the fingerprint of the images that are made of `key`. Where nothing can be written, nothing is noted."""
    if recall(cache, key) != fingerprint:
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            write_whole(cache / f"seen-{key}", fingerprint + digest(fingerprint))


def recall(cache: Path, key: str) -> str | None:
    """The fingerprint that was noted under `key`, if it was."""
    try:
        content = (cache / f"seen-{key}").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return content[:64] if digest(content[:64]) == content[64:] else None
