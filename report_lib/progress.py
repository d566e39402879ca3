"""Progress: a bar where somebody looks on, a line an epoch in a log, nothing more. Imports no torch.

REPORT_PROGRESS says which: "bar" (the default), "lines" or "none". Without tqdm, bars become lines.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

Item = TypeVar("Item")


class Lines:
    """Stands in for tqdm's bar in a log: says what each epoch came to, and is silent about batches."""

    def __init__(self, desc: str) -> None:
        self.desc = desc

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        pass

    def set_postfix_str(self, text: str) -> None:
        if os.environ.get("REPORT_PROGRESS") != "none":
            print(f"{self.desc}: {text}", file=sys.stderr, flush=True)


def bar(desc: str, total: int, unit: str, initial: int = 0) -> AbstractContextManager:
    """With `update(steps)` for steps done and `set_postfix_str(text)` for what an epoch came to."""
    tqdm = _tqdm()
    if tqdm is None:
        return Lines(desc)
    return tqdm(desc=desc, total=total, unit=unit, initial=initial, leave=False, mininterval=0.5)


def each(items: Iterable[Item], desc: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """`items`, with a bar for how many of them have been taken."""
    tqdm = _tqdm()
    if tqdm is None:
        return iter(items)
    return iter(tqdm(items, desc, total=total, unit=unit, leave=False, mininterval=0.5))


def _tqdm() -> type | None:
    if os.environ.get("REPORT_PROGRESS", "bar") != "bar":
        return None
    try:
        from tqdm import tqdm
    except ImportError:  # a node that only trains needs torch, torchvision and numpy
        return None
    return tqdm
