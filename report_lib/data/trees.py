"""A tree or archive of class folders -> decoded images in the cache; it may be larger than memory.

Every file is looked at first, since all of them decide what becomes of each: whether the pictures keep their size, and
what range the values of deep ones have.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from report_lib.data import archives, folders, pictures
from report_lib.data.decoded import Entry
from report_lib.files import InputError, bar

LARGEST = 1 << 28  # bytes of one image file
CHUNK = 256  # files that are looked at, or decoded, before anything is done with them
UNGUARDED = 3  # exit code of a process that has met the call for which it was started
PATIENCE = 3  # seconds of work after which more processes are worth their start


def decode(path: Path, image_size: int, native: Path) -> Path:
    """Decodes a tree or archive into a new entry of the cache, and says what became of its files; returns the entry:
    `native`, or one for this size.

    Raises InputError for what cannot be used.
    """
    with _Workers() as workers:
        looks, notes = _survey(path, workers)
        placed, left_out, merged = folders.place(path, looks)
        useless = {}  # files in class folders that are no images -> their kind
        for name in placed:
            look = looks[name]
            if look and look.problem and not look.other:
                useless[name] = _undecodable(path, name, look.problem)
            elif (not look or look.other) and not name.endswith("/"):
                useless[name] = folders.by_ending(name)
        keep = True
        while True:  # until nothing more has to be left out, or squeezed to one size
            classes, rows, labels, alike = folders.arrange(path, placed, useless)
            used = {name: look for name in rows if (look := looks[name])}
            values, ranges = _scale(path, list(used.values()))
            size, *others = {look.size for look in used.values()}
            keep = keep and not others and max(size) <= image_size
            shape = size[::-1] if keep else (image_size, image_size)
            entry = native if keep else native.with_name(native.name.replace("native", str(image_size)))
            with Entry(entry, {part: len(labels[part]) for part in labels}, shape) as writing:
                decode = functools.partial(pictures.decode, shape=None if keep else shape, values=values)
                files = _files(path, lambda member, kept=rows: member.name in kept)  # type: ignore[misc]
                results = workers.map(f"decoding {path.name}", decode, files, _most(image_size), len(rows))
                lost, odd, differ = _fill(path, results, rows, dict(writing.pixels))
                if lost or differ:
                    useless |= lost
                    keep = not differ
                    continue
                for name, look in used.items():
                    for key in look.odd:
                        odd.setdefault(key, []).append(name)
                left_out.update(useless.values())
                notes += [*merged, *alike, *ranges]
                notes += [f"{pictures.ODD[k]}: {len(n):,} of {len(rows):,}, such as {n[0]!r}." for k, n in odd.items()]
                facts = writing.finish(classes, labels, dict(left_out), values, notes)
            for sentence in (*folders.sentences(facts, len(labels["test"])), *notes):
                print(f"{path.name}: {sentence}", file=sys.stderr)
            return entry


def _survey(path: Path, workers: "_Workers") -> tuple[dict[str, pictures.Seen | None], list[str]]:
    """(every file and folder -> a first look at it if it may be used, sentences on odd names)."""
    looks: dict[str, pictures.Seen | None] = {}
    notes: set[str] = set()

    def wanted(member: archives.Member) -> bool:
        used = not member.name.endswith("/") and folders.may_be_used(member.name)
        if used and member.name in looks:
            raise InputError(f"data is {str(path)!r}, which holds {member.name!r} twice; pack it anew")
        looks[member.name] = None
        notes.update([member.note] * bool(member.note))
        if used and member.size > LARGEST and pictures.has_image_ending(member.name):
            raise InputError(
                f"data is {str(path)!r}, whose {member.name!r} holds {member.size >> 20:,} MiB; no image file is that "
                "large"
            )
        return used and member.size <= LARGEST

    for name, look in workers.map(f"reading {path.name}", pictures.examine, _files(path, wanted), CHUNK):
        looks[name] = look
    return looks, sorted(notes)


def _files(path: Path, wanted: Callable[[archives.Member], bool]) -> Iterator[tuple[str, pictures.Content]]:
    for member, content in archives.members(path, wanted):
        if content is not None:
            yield member.name, content


def skipping() -> bool:
    """Whether images that cannot be decoded are left out: $REPORT_SKIP_UNDECODABLE."""
    given = os.environ.get("REPORT_SKIP_UNDECODABLE", "")
    if given not in ("", "0", "1"):
        raise InputError(f"REPORT_SKIP_UNDECODABLE is {given!r}; allowed are 0 and 1")
    return given == "1"


def _undecodable(path: Path, name: str, reason: str) -> str:
    """The kind of an image that cannot be decoded, if such are left out."""
    if skipping():
        return "undecodable images"
    raise InputError(
        f"data is {str(path)!r}, whose image {name!r} cannot be decoded ({reason}); repair or remove it, or leave out "
        "all such images with REPORT_SKIP_UNDECODABLE=1"
    )


def _scale(path: Path, looks: list[pictures.Seen]) -> tuple[tuple[float, float] | None, list[str]]:
    """(the values that become 0 and 255 in all pictures of more than 8 bits, if there are any; a sentence on that)."""
    deep = [look for look in looks if look.deep]
    if not deep:
        return None, []
    if len({look.integer for look in deep}) > 1:
        raise InputError(
            f"data is {str(path)!r}, which mixes pictures of whole numbers with pictures of fractions; they have no "
            "scale in common, so convert them to one kind"
        )
    low, high = values = pictures.scale([look.values for look in deep if look.values], deep[0].integer)
    others = f"; the other {len(looks) - len(deep):,} stay as they are" if len(deep) < len(looks) else ""
    note = f"Values from {low:g} to {high:g} became 0 to 255 in pictures of more than 8 bits, {len(deep):,} of "
    return values, [f"{note}{len(looks):,}{others}."]


def _fill(
    path: Path, results: Iterator, rows: dict[str, tuple[str, int]], pixels: dict[str, np.ndarray]
) -> tuple[dict[str, str], dict[str, list[str]], bool]:
    """Writes decoded images into their rows; (images to leave out -> their kind, oddity -> names, whether images are of
    other sizes than a first look said).

    Raises InputError for an image that cannot be decoded, or that has gone since it was looked at.
    """
    lost: dict[str, str] = {}
    odd: dict[str, list[str]] = {}
    lacking = dict.fromkeys(rows)
    with contextlib.closing(results):  # type: ignore[type-var]
        for name, picture in results:
            lacking.pop(name)
            part, row = rows[name]
            if isinstance(picture, str):
                lost[name] = _undecodable(path, name, picture)
            elif picture.shape != pixels[part].shape[1:]:
                return lost, odd, True
            else:
                pixels[part][row] = picture
                if key := pictures.oddity(picture):
                    odd.setdefault(key, []).append(name)
    if lacking:
        raise InputError(f"data is {str(path)!r}, whose image {next(iter(lacking))!r} has gone meanwhile; start again")
    return lost, odd, False


class _Workers:
    """Maps a function over files, on several processes once that has taken long enough to be worth their start.

    Processes, since PIL keeps Python's lock while it decodes; new ones, since a fork of torch's threads may hang.
    """

    def __enter__(self) -> "_Workers":
        # A process for decoding imports the script that asked for it; without a guard, the script asks again there.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            sys.exit(UNGUARDED)
        self.count, self.seconds = min(_cores(), 16), 0.0
        self.pool: ProcessPoolExecutor | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def map(self, what: str, function: Callable, files: Iterable, most: int, total: int = 0) -> Iterator:
        """(name, function(name, content)) of each of the files (name, content), at most so many at once."""
        with bar(what, total, "file") as progress:
            for chunk in _chunks(iter(files), most):
                clock = time.monotonic()
                if self.pool is None and self.count > 1 and self.seconds > PATIENCE:
                    self.pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"))
                shares = [chunk[start :: self.count] for start in range(self.count)] if self.pool else [chunk]
                each = (self.pool.map if self.pool else map)(functools.partial(_share, function), shares)
                children = multiprocessing.active_children() if self.pool else []
                try:
                    results = list(itertools.chain.from_iterable(each))
                except BrokenProcessPool as error:
                    self.pool.shutdown()  # type: ignore[union-attr]  # and the exit codes are known
                    if any(child.exitcode == UNGUARDED for child in children):
                        raise InputError(
                            f"{what} has failed: it starts {self.count} processes, each of which imports the script "
                            f"{sys.argv[0]!r}; put what that does under if __name__ == '__main__':"
                        ) from error
                    raise InputError(
                        f"{what} has failed: one of {self.count} processes was killed, most likely since memory ran "
                        "out; close other programs, or give it fewer processors (taskset -c 0 make ...)"
                    ) from error
                self.seconds += time.monotonic() - clock
                progress.update(len(chunk))
                yield from results


def _share(function: Callable, files: list) -> list:
    return [(name, function(name, content)) for name, content in files]


def _cores() -> int:
    """Those that this process may use, which on a shared machine are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _most(image_size: int) -> int:
    """How many images are decoded at once: at most 256 MiB."""
    return max(1, min(CHUNK, (256 << 20) // (3 * image_size**2)))


def _chunks(files: Iterator, most: int) -> Iterator[list]:
    """Lists of at most so many files, or 64 MiB of them, so that a tree larger than memory streams through."""
    chunk: list = []
    held = 0
    for file in files:
        chunk.append(file)
        held += len(file[1]) if isinstance(file[1], bytes) else 0
        if len(chunk) == most or held > 64 << 20:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
