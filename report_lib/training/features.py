"""Frozen features: what layers that never change make of every image, computed once for all epochs and all seeds.

They lie memory-mapped in the cache, under a name made of everything that determines them, so that none is ever stale.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from report_lib.data import cache_limit, make_room
from report_lib.files import InputError, digest, each, reserved
from report_lib.training.device import Place, room_for, wait_for
from report_lib.training.precision import autocast, converted

BATCH = 64  # of one size whatever the config's, so that the bits don't depend on it; fastest on a CPU

Inputs = Callable[[Tensor], Tensor]  # indices (B,) -> what a module takes: pictures (B, 3, s, s) or features (B, ...)


def frozen_features(layers: nn.Module, inputs: Inputs, count: int, key: dict, place: Place) -> tuple[Inputs, float]:
    """(what gives the rows of `layers` in eval mode of all images, float32; the seconds it once took to make them).

    `key` must hold everything that determines the result. What is found damaged is made again. Features that would
    fill the cache are not kept, but computed whenever they are asked for. Raises InputError if the disk has no room.
    """
    layers.eval()
    with torch.inference_mode(), autocast(place.precision, place.device):
        shape = tuple(layers(inputs(torch.zeros(1, dtype=torch.int64, device=place.device))).shape[1:])
    size = 4 * count * math.prod(shape)
    if size > cache_limit() / 2:
        print(
            f"frozen features of {size / 2**30:.1f} GiB are not kept, but computed anew in every epoch", file=sys.stderr
        )
        return lambda index: _forward(layers, inputs(index), place), 0.0
    entry = place.cache / f"features-{digest(key)[:24]}"
    stored = None
    for attempt in range(3):
        there = entry.exists()
        if (stored := _read(entry, (count, *shape))) is not None:
            break
        if attempt == 2:
            raise InputError(
                f"cache is {str(place.cache)!r}, where {entry.name} is damaged and cannot be replaced; remove it"
            )
        if there:  # and damaged; what another process has finished since is not
            _put_away(entry)
        make_room(place.cache, size)
        _write(entry, layers, inputs, (count, *shape), place)
    assert stored is not None
    with contextlib.suppress(OSError):  # another user's
        os.utime(entry)  # what was used last is forgotten last
    values, meta = stored
    return rows(torch.from_numpy(values), place.device), float(meta["seconds"])


def rows(values: Tensor, device: torch.device) -> Inputs:
    """Indices -> rows of `values`, which move to the device if it has room for them."""
    if room_for(values.nbytes, device):
        values = values.to(device)
    return lambda index: values[index.to(values.device)].to(device)


def _forward(layers: nn.Module, batch: Tensor, place: Place) -> Tensor:
    with torch.no_grad(), autocast(place.precision, place.device):
        return layers(batch).float()


def _put_away(entry: Path) -> None:
    """Removes a damaged entry under another name, so that one which another process has just finished stays."""
    if not entry.exists():
        return
    aside = entry.with_name(f".{entry.name}-{os.getpid()}-damaged")
    with contextlib.suppress(OSError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@torch.inference_mode()
def _write(entry: Path, layers: nn.Module, inputs: Inputs, shape: tuple[int, ...], place: Place) -> None:
    working = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    device = place.device
    try:
        values = reserved(working / "values.npy", np.float32, shape)
        # Collected on the device if it has room: to wait for each batch would let it idle.
        onto = torch.empty(values.shape, device=device) if room_for(values.nbytes, device) else torch.from_numpy(values)
        clock = time.perf_counter()
        layers = converted(layers, place.precision)
        for batch in each(torch.arange(shape[0], device=device).split(BATCH), "frozen features", "batch"):
            with autocast(place.precision, device):
                onto[batch] = layers(inputs(batch)).float().to(onto.device)
        wait_for(device)
        seconds = time.perf_counter() - clock
        if onto.device.type != "cpu":
            values[:] = onto.cpu().numpy()
        meta = {"seconds": seconds, "sha256": _sha256(values)}
        (working / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        values.flush()  # type: ignore[attr-defined]
        working.chmod(0o755)
        try:
            working.rename(entry)
        except OSError:  # another process was first, and made the same
            if not entry.is_dir():
                raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _read(entry: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, dict] | None:
    """What `entry` holds, or None if that is nothing, or not what was written: a checksum stands in for an fsync."""
    try:
        # Copy-on-write, since torch has no read-only tensors: a stray write could never reach the file.
        values = np.load(entry / "values.npy", mmap_mode="c", allow_pickle=False)
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if values.shape == shape and values.dtype == np.float32 and _sha256(values) == meta["sha256"]:
            return values, meta
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        pass
    return None


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
