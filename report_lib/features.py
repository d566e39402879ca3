"""Frozen features: what layers that never change make of every image, computed once for all epochs and all seeds.

They lie memory-mapped in the cache, under a name made of everything that determines them, so that none is ever stale.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from report_lib import progress
from report_lib.disk import reserved, sweep
from report_lib.machine import finished, room_for
from report_lib.recipe import InputError, digest, shown

BATCH = 64  # of one size whatever the recipe's, so that the bits don't depend on it; fastest on a CPU


def frozen_features(
    layers: nn.Module, inputs: Callable[[Tensor], Tensor], count: int, width: int, key: dict, cache: Path
) -> tuple[Tensor, float]:
    """(float32 (count, width) on the CPU: `layers` in eval mode of all images, the seconds it once took to make them).

    `inputs` maps indices (B,) to pictures on the computing device. `key` must hold everything that determines the
    result. What is found damaged is made again. Raises InputError if the disk has no room.
    """
    entry = cache / f"features-{digest(key)[:24]}"
    found = None
    for attempt in range(3):
        there = entry.exists()
        if (found := _read(entry, (count, width))) is not None:
            break
        if attempt == 2:
            raise InputError(
                f"cache is {str(cache)!r}, where {entry.name} is damaged and cannot be replaced; remove it"
            )
        if there:  # and damaged; what another process has finished since is not
            _put_away(entry)
        make_room(cache, count * width * 4)
        _write(entry, layers, inputs, count, width)
    assert found is not None
    with contextlib.suppress(OSError):  # another user's
        os.utime(entry)  # what was used last is forgotten last
    values, meta = found
    return torch.from_numpy(values), float(meta["seconds"])


def _put_away(entry: Path) -> None:
    """Removes a damaged entry under another name, so that one which another process has just finished stays."""
    if not entry.exists():
        return
    aside = entry.with_name(f".{entry.name}-{os.getpid()}-damaged")
    with contextlib.suppress(OSError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def cache_limit() -> float:
    """Bytes that frozen features may take: $REPORT_CACHE_GIB, 16 if not given. Raises InputError if that is no size."""
    given = os.environ.get("REPORT_CACHE_GIB") or "16"
    try:
        limit = float(given) * 2**30
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise InputError(f"REPORT_CACHE_GIB is {shown(given)}; allowed is a number of GiB from 0, such as 16")
    return limit


def make_room(cache: Path, size: int) -> None:
    """Removes the features that were used longest ago until `size` bytes more stay within the limit.

    Raises InputError if the disk has no room for them even so.
    """
    limit = cache_limit()
    sweep(cache, ".features-*")
    entries = []
    for entry in (*cache.glob("features-*"), *cache.glob(".features-*")):
        with contextlib.suppress(OSError):  # gone meanwhile
            held = sum(file.stat().st_size for file in entry.iterdir())
            entries.append((entry.stat().st_mtime, held, entry))
    entries.sort()
    for position, (_, _, entry) in enumerate(entries):
        if sum(held for _, held, _ in entries[position:]) + size <= limit:
            break
        if not entry.name.startswith("."):  # those are in the making
            shutil.rmtree(entry, ignore_errors=True)  # whoever has it mapped keeps it: its pages outlive its name
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < size:
        raise InputError(
            f"cache is {str(cache)!r}, whose disk has no room for {size / 2**30:.1f} GiB of frozen features; make "
            "room, or name another folder in REPORT_CACHE"
        )


@torch.inference_mode()
def _write(entry: Path, layers: nn.Module, inputs: Callable[[Tensor], Tensor], count: int, width: int) -> None:
    working = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    device = next(layers.parameters()).device
    try:
        values = reserved(working / "values.npy", np.float32, (count, width))
        # Collected on the device if it has room: to wait for each batch would let it idle.
        collected = (
            torch.empty(values.shape, device=device) if room_for(values.nbytes, device) else torch.from_numpy(values)
        )
        layers.eval()
        clock = time.perf_counter()
        for batch in progress.each(torch.arange(count, device=device).split(BATCH), "frozen features", "batch"):
            collected[batch] = layers(inputs(batch)).float().to(collected.device)
        finished(device)
        seconds = time.perf_counter() - clock
        if collected.device.type != "cpu":
            values[:] = collected.cpu().numpy()
        (working / "meta.json").write_text(
            json.dumps({"seconds": seconds, "sha256": _sha256(values)}), encoding="utf-8"
        )
        values.flush()  # type: ignore[attr-defined]
        working.chmod(0o755)
        try:
            working.rename(entry)
        except OSError:  # another process was first, and made the same
            if not entry.is_dir():
                raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _open(entry: Path) -> tuple[np.ndarray, dict]:
    # Copy-on-write, since torch has no read-only tensors: a stray write could never reach the file.
    values = np.load(entry / "values.npy", mmap_mode="c", allow_pickle=False)
    return values, json.loads((entry / "meta.json").read_text(encoding="utf-8"))


def _read(entry: Path, shape: tuple[int, int]) -> tuple[np.ndarray, dict] | None:
    """What `entry` holds, or None if that is nothing, or not what was written: a checksum stands in for an fsync."""
    try:
        values, meta = _open(entry)
        if values.shape == shape and values.dtype == np.float32 and _sha256(values) == meta["sha256"]:
            return values, meta
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        pass
    return None


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.data).hexdigest()
