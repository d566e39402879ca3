"""A tree or archive of class folders -> decoded images in the cache; it may be larger than memory.

Every file is looked at first, since all of them decide what becomes of each: whether the pictures keep their size, and
what range the values of deep ones have.
"""

import functools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from report_lib.data import archives, decoded, folders, pictures
from report_lib.files import InputError, bar

LARGEST = 1 << 28  # bytes of one image file
BROKEN = "undecodable images"
NAMED = 10  # of them
CHUNK = 256  # files that are looked at, or decoded, before anything is done with them


class _Lost(Exception):
    """Images that cannot be decoded and are left out: each with its kind."""


def decode(path: Path, image_size: int, native: Path) -> Path:
    """Decodes a tree or archive into a new entry of the cache, and says what became of its files; returns the entry:
    `native`, or one for this size.

    Raises InputError for what cannot be used.
    """
    looks, notes = _survey(path)
    placed, left_out, merged = folders.place(path, looks)
    useless = {}  # files in class folders that are no images -> their kind
    for name in placed:
        look = looks[name]
        if look and look.problem and not look.other:
            useless[name] = _undecodable(path, name, look.problem)
        elif (not look or look.other) and not name.endswith("/"):
            useless[name] = folders.by_ending(name)
    while True:  # until nothing more has to be left out
        classes, rows, labels, alike = folders.arrange(path, placed, useless)
        used = {name: look for name in rows if (look := looks[name])}
        values, ranges = _scale(path, list(used.values()))
        size, *others = {look.size for look in used.values()}
        keep = not others and max(size) <= image_size
        shape = size[::-1] if keep else (image_size, image_size)
        entry = native if keep else native.with_name(native.name.replace("native", str(image_size)))
        odd: dict[str, list[str]] = {}
        for name, look in used.items():
            for key in look.odd:
                odd.setdefault(key, []).append(name)
        unused = dict(left_out + Counter(useless.values()))
        try:
            with decoded.writing(entry, {part: len(labels[part]) for part in labels}, shape) as pixels:
                _fill(path, rows, pixels, functools.partial(pictures.decode, shape=shape, values=values), odd)
                said = [f"{pictures.ODD[k]}: {len(n):,} of {len(rows):,}, such as {n[0]!r}." for k, n in odd.items()]
                every = [*notes, *merged, *alike, *ranges, *said, *_named_broken(useless)]
                facts = decoded.finish(pixels, classes, labels, {"left_out": unused, "range": values, "notes": every})
        except _Lost as lost:
            useless |= lost.args[0]
            continue
        for sentence in (*folders.sentences(facts, len(labels["test"])), *every):
            print(f"{path.name}: {sentence}", file=sys.stderr)
        return entry


def _survey(path: Path) -> tuple[dict[str, pictures.Seen | None], list[str]]:
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

    looks |= dict(_each(f"reading {path.name}", pictures.examine, _files(path, wanted), CHUNK))
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


def _named_broken(useless: dict[str, str]) -> list[str]:
    """Which images could not be decoded, in a sentence."""
    names = sorted(name for name, kind in useless.items() if kind == BROKEN)
    more = f" and {len(names) - NAMED:,} more" * (len(names) > NAMED)
    return [f"Not decodable: {', '.join(map(repr, names[:NAMED]))}{more}."] if names else []


def _undecodable(path: Path, name: str, reason: str) -> str:
    """The kind of an image that cannot be decoded, if such are left out."""
    if skipping():
        return BROKEN
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
    path: Path, rows: dict[str, tuple[str, int]], pixels: dict[str, np.ndarray], decode: Callable, odd: dict
) -> None:
    """Writes decoded images into their rows, and down in `odd` which of them show nothing.

    Raises _Lost for those to leave out, and InputError for one that cannot be decoded, or that has gone since it was
    looked at.
    """
    lost, lacking = {}, dict.fromkeys(rows)
    most = max(1, min(CHUNK, (256 << 20) // pixels["train"][0].nbytes))  # at once: at most 256 MiB
    files = _files(path, lambda member: member.name in rows)
    for name, picture in _each(f"decoding {path.name}", decode, files, most, len(rows)):
        lacking.pop(name)
        part, row = rows[name]
        if isinstance(picture, str):
            lost[name] = _undecodable(path, name, picture)
        else:
            pixels[part][row] = picture
            if key := pictures.oddity(picture):
                odd.setdefault(key, []).append(name)
    if lacking:
        raise InputError(f"data is {str(path)!r}, whose image {next(iter(lacking))!r} has gone meanwhile; start again")
    if lost:
        raise _Lost(lost)


def _each(what: str, function: Callable, files: Iterable, most: int, total: int = 0) -> Iterator[tuple]:
    """(name, function(name, content)) of each of the files (name, content), at most so many at once.

    Threads will do, since PIL lets go of Python's lock while it decodes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with bar(what, total, "file") as progress, ThreadPoolExecutor(min(cores, 16)) as pool:
        for chunk in _chunks(files, most):
            with warnings.catch_warnings(action="ignore"):  # of metadata
                results = list(pool.map(lambda file: (file[0], function(*file)), chunk))
            progress.update(len(chunk))  # type: ignore[attr-defined]
            yield from results


def _chunks(files: Iterable, most: int) -> Iterator[list]:
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
