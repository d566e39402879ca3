"""Sources of images -> uint8 arrays: scikit-learn's digits, CIFAR-10, any tree or archive of class folders.

Images are decoded once into a memory-mapped cache, so a tree may be larger than memory.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from report_lib import archives, decoded, progress
from report_lib.archives import members, walk
from report_lib.decoded import Arrays, Entry, cached
from report_lib.recipe import InputError, check_plain, check_writable, locate

HELD = 1 << 29  # bytes of an archive that are kept in memory between finding its classes and decoding
PER_WORKER = 1000  # images that are worth starting a process for
# PIL knows many more, some of which it hands to another program (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")  # those of archives.IMAGE_ENDINGS
EXPECTED = "train/<class>/* and test/<class>/* with the same classes in both"


def read(source: str, image_size: int, cache: Path) -> tuple[Arrays, str]:
    """(arrays of `source`, their fingerprint): digits, cifar10, or the path of a tree or archive; see `data.load`.

    Raises InputError if there is no such source, if it cannot be downloaded, read or decoded, or if the cache cannot be
    written.
    """
    if source == "digits":
        digits = _digits()
        return digits, digits.fingerprint()
    check_writable(cache, "cache")
    check_plain("data", source)
    path = locate(source)
    identity = "cifar10" if source == "cifar10" else _identity(path)
    name = "CIFAR-10" if source == "cifar10" else path.name.split(".")[0]
    for size in ("native", str(image_size)):
        ready = cache / f"{identity[:24]}-{size}"
        found = cached(ready, name)
        if found and (size != "native" or max(found[0].train.shape[1:3]) <= image_size):
            return found
    if source == "cifar10":
        arrays = _cifar10(cache)
        entry = Entry(cache, f"{identity}-native")
        try:
            for part in ("train", "test"):
                entry.array(part, getattr(arrays, part).shape)[:] = getattr(arrays, part)
            ready = entry.finish(arrays, 0)
        except BaseException:
            entry.discard()
            raise
    else:
        ready = _decode(path, image_size, cache, identity)
    if found := cached(ready, name):
        return found
    raise InputError(f"cache is {str(cache)!r}, where {ready.name} does not stay as it was written; check that disk")


def _digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8 x 8; every fifth image of each class tests."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pictures = np.repeat(grey[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    rank = np.zeros(len(labels), int)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    test = rank % 5 == 4
    # As words: "gains most on seven" can be read, "gains most on 7 (+9.1 points)" cannot.
    classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    name = "handwritten digits (scikit-learn)"
    return Arrays(name, classes, pictures[~test], labels[~test], pictures[test], labels[test])


def _cifar10(cache: Path) -> Arrays:
    """CIFAR-10 as torchvision serves it; its archive and each file in it are checked against their md5."""
    from torchvision.datasets import CIFAR10

    try:
        train, test = (CIFAR10(str(cache / "torchvision"), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data is 'cifar10', which could not be downloaded into {cache / 'torchvision'} ({error}); connect once, "
            f"or copy {CIFAR10.filename} there, or give DATA=digits or DATA=<folder or archive>"
        ) from error
    labels = [np.asarray(part.targets, np.int64) for part in (train, test)]
    return Arrays("CIFAR-10", list(train.classes), train.data, labels[0], test.data, labels[1])


def _decode(path: Path, image_size: int, cache: Path, identity: str) -> Path:
    """Decodes a class-folder tree or archive into the cache, one chunk of files in memory at a time."""
    names, held = _names(path)
    left_out: set[str] = set()
    shape: tuple[int, int] | None = None  # first as they are
    while True:
        rows, classes, labels = _index(path, [name for name in names if name not in left_out])
        entry = Entry(cache, f"{identity[:24]}-{shape[0] if shape else 'native'}")
        try:
            stream = held.items() if held else members(path, rows.__contains__)
            files = ((name, content) for name, content in stream if name in rows)
            train, test = _fill(path, files, rows, labels, shape, image_size, entry)
        except _SizesDiffer:
            entry.discard()
            shape = (image_size, image_size)
        except _Undecodable as found:  # and to be left out: once more, without them
            entry.discard()
            left_out.update(found.names)
            shown = ", ".join(found.names[:5]) + ", ..." * (len(found.names) > 5)
            print(f"left out of {path.name}: {len(left_out)} images that cannot be decoded ({shown})", file=sys.stderr)
        except BaseException:
            entry.discard()
            raise
        else:
            arrays = Arrays("", classes, train, labels["train"], test, labels["test"])
            return entry.finish(arrays, len(left_out))


class _Undecodable(Exception):
    """Some images cannot be decoded, and REPORT_SKIP_UNDECODABLE says to leave them out."""

    def __init__(self, names: list[str]) -> None:
        self.names = names


def _skipping() -> bool:
    given = os.environ.get("REPORT_SKIP_UNDECODABLE", "")
    if given not in ("", "0", "1"):
        raise InputError(f"REPORT_SKIP_UNDECODABLE is {given!r}; allowed are 0 and 1")
    return given == "1"


class _SizesDiffer(Exception):
    """The images cannot be kept as they are: their sizes differ or exceed the wanted one."""


def _names(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """(names of all image files, their contents if `path` is an archive of moderate size: it is then read once)."""
    found: dict[str, bytes] = {}
    hold, held = path.is_file(), 0  # bytes so far

    def wanted(_: str) -> bool:
        return hold

    for name, content in progress.each(members(path, wanted), f"reading {path.name}", "image"):
        found[name] = content
        held += len(content)
        if hold and held > HELD:  # too much: they are read again when they are decoded
            hold, found = False, dict.fromkeys(found, b"")
    return list(found), found if hold else {}


def _index(path: Path, names: list[str]) -> tuple[dict[str, tuple[str, int]], list[str], dict[str, np.ndarray]]:
    """(file name -> (part, row), classes, labels of each part), rows in torchvision ImageFolder's sorted order."""
    parts = _parts(path, names)
    classes = sorted({cls for _, cls in parts.values()})
    for cls in classes:
        if not cls.isprintable():  # control characters, or bytes that are no UTF-8
            raise InputError(f"data is {str(path)!r}, whose class {cls!r} has no printable name; rename that folder")
    for part in ("train", "test"):
        present = {cls for kind, cls in parts.values() if kind == part}
        if not present:
            raise InputError(f"data is {str(path)!r}, which has no image under {part}/; expected is {EXPECTED}")
        if missing := sorted(set(classes) - present):
            raise InputError(
                f"data is {str(path)!r}, whose class {missing[0]!r} has no image under {part}/; expected is {EXPECTED}"
            )
    rows, labels = {}, {}
    for part in ("train", "test"):
        ordered = sorted(name for name, (kind, _) in parts.items() if kind == part)
        ordered.sort(key=lambda name: classes.index(parts[name][1]))
        rows.update({name: (part, row) for row, name in enumerate(ordered)})
        labels[part] = np.array([classes.index(parts[name][1]) for name in ordered], np.int64)
    return rows, classes, labels


def _parts(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """File name -> ("train" or "test", class), after the folders that lead to train/ and test/ are taken off."""
    folders = {name: PurePosixPath(name).parts[:-1] for name in names}
    leads = {parts[:i] for parts in folders.values() for i, part in enumerate(parts[:-1]) if part in ("train", "test")}
    for lead in sorted(leads, key=lambda parts: (len(parts), parts)):
        found = {
            name: (parts[len(lead)], parts[len(lead) + 1])
            for name, parts in folders.items()
            if parts[: len(lead)] == lead and len(parts) > len(lead) + 1 and parts[len(lead)] in ("train", "test")
        }
        if {kind for kind, _ in found.values()} == {"train", "test"}:
            return found
    has_train = any("train" in parts[:-1] for parts in folders.values())
    lacks = "has no test/ folder with images" if has_train else "has no train/ folder with images"
    raise InputError(f"data is {str(path)!r}, which {lacks}; expected is {EXPECTED}")


def _fill(
    path: Path,
    files: Iterator[tuple[str, bytes]],
    rows: dict[str, tuple[str, int]],
    labels: dict[str, np.ndarray],
    shape: tuple[int, int] | None,
    image_size: int,
    entry: Entry,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes every indexed file into its row of (train, test); without a `shape`, the first image sets it.

    Raises InputError for an image that cannot be decoded, or that has gone since it was indexed.
    """
    arrays: dict[str, np.ndarray] = {}
    undecodable, lacking = [], dict.fromkeys(rows)
    workers = min(_cores(), len(rows) // PER_WORKER)
    with (
        # Processes, since PIL keeps Python's lock while it decodes; new ones, since a fork of torch's threads may hang.
        ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else contextlib.nullcontext() as pool,
        progress.bar(f"decoding {path.name}", len(rows), "image") as bar,
    ):
        for chunk in _chunks(files, image_size):
            shares = [chunk[start :: workers or 1] for start in range(workers or 1)]
            decode = functools.partial(_share, shape, image_size)
            for name, pixels in itertools.chain.from_iterable((pool.map if pool else map)(decode, shares)):
                if isinstance(pixels, str):
                    if not _skipping():
                        raise InputError(
                            f"data is {str(path)!r}, whose image {name!r} cannot be decoded ({pixels}); repair or "
                            "remove it, or leave out all such images with REPORT_SKIP_UNDECODABLE=1"
                        )
                    undecodable.append(name)
                    continue
                if pixels is None:
                    raise _SizesDiffer
                if not arrays:
                    arrays = {p: entry.array(p, (len(labels[p]), *pixels.shape)) for p in ("train", "test")}
                part, row = rows[name]
                if pixels.shape != arrays[part].shape[1:]:
                    raise _SizesDiffer
                arrays[part][row] = pixels
                lacking.pop(name, None)
            bar.update(len(chunk))
    if undecodable:
        raise _Undecodable(undecodable)
    if lacking:
        raise InputError(f"data is {str(path)!r}, whose image {next(iter(lacking))!r} has gone meanwhile; start again")
    return arrays["train"], arrays["test"]


def _cores() -> int:
    """Those that this process may use, which on a shared machine are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(
    items: Iterator[tuple[str, bytes]], image_size: int, megabytes: int = 64
) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of at most 1024 files, or so many megabytes encoded, or four times that decoded to at most `image_size`, so
    that a tree larger than memory streams through."""
    most = max(1, min(1024, (4 * megabytes << 20) // (3 * image_size**2)))
    chunk: list[tuple[str, bytes]] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += len(item[1])
        if len(chunk) == most or held > megabytes << 20:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _share(
    shape: tuple[int, int] | None, largest: int, files: list[tuple[str, bytes]]
) -> list[tuple[str, np.ndarray | str | None]]:
    """(name, what `_pixels` says) of each file, up to the first that is too large to be kept as it is."""
    share = []
    for name, encoded in files:
        share.append((name, _pixels(encoded, shape, largest)))
        if share[-1][1] is None:
            break
    return share


def _pixels(encoded: bytes, shape: tuple[int, int] | None, largest: int) -> np.ndarray | str | None:
    """uint8 (h, w, 3) of one encoded image, turned upright by its EXIF tag, as RGB, squeezed to `shape` if given; None
    if there is none and a side exceeds `largest`; or why it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            plain = picture.format == "JPEG" and not picture.info.keys() & {"exif", "xmp"}
            upright = picture if plain else ImageOps.exif_transpose(picture)  # which takes as long as decoding
            if upright.mode.startswith("I"):  # 16-bit grey, which PIL's convert would clip to white
                upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
            rgb = upright.convert("RGB")
            if shape:
                return np.asarray(rgb.resize(shape, Image.Resampling.BILINEAR))
            return np.asarray(rgb) if max(rgb.size) <= largest else None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        return f"it is none of {', '.join(FORMATS)}"
    except Exception as error:  # whatever a decoder makes of damage
        return next(iter(str(error).splitlines()), type(error).__name__)


ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is an error, whatever another library has set


def _identity(path: Path) -> str:
    """Names the decoder and what is on disk: an archive by its bytes, a tree by its files' names, sizes and times."""
    code = b"".join(Path(file).read_bytes() for file in (__file__, archives.__file__, decoded.__file__))
    sha = hashlib.sha256(code + PIL.__version__.encode() + b"skip" * _skipping())
    if path.is_file():
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()
    for found in walk(path):
        state = found.stat()
        line = f"{found}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
        sha.update(line.encode("utf-8", "surrogateescape"))
    return sha.hexdigest()
