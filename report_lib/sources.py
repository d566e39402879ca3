"""Sources of images -> uint8 arrays: scikit-learn's digits, CIFAR-10, any tree or archive of class folders.

Images are decoded once into a memory-mapped cache, so a tree may be larger than memory. Nothing is ever extracted
from an archive: its members are read as a stream.
"""

import bz2
import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps
from tqdm import tqdm

from report_lib.recipe import InputError, check_writable, locate

# As torchvision's ImageFolder has them.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
HELD = 1 << 29  # bytes of an archive that are kept in memory between finding its classes and decoding
PER_WORKER = 1000  # images that are worth starting a process for
EXPECTED = "train/<class>/* and test/<class>/* with the same classes in both"


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


def read(source: str, image_size: int, cache: Path) -> tuple[Arrays, str]:
    """(arrays of `source`, their fingerprint): digits, cifar10, or the path of a tree or archive; see `data.load`."""
    if source == "digits":
        digits = _digits()
        return digits, digits.fingerprint()
    check_writable(cache, "cache")
    path = locate(source)
    identity = "cifar10" if source == "cifar10" else _identity(path)
    name = "CIFAR-10" if source == "cifar10" else path.name.split(".")[0]
    for size in ("native", str(image_size)):
        ready = cache / f"{identity[:24]}-{size}"
        if ready.is_dir():
            arrays, fingerprint = _cached(ready, name)
            if size != "native" or max(arrays.train.shape[1:3]) <= image_size:
                return arrays, fingerprint
    if source == "cifar10":
        arrays = _cifar10(cache)
        entry = _Entry(cache, f"{identity}-native")
        for part in ("train", "test"):
            entry.array(part, getattr(arrays, part).shape)[:] = getattr(arrays, part)
        return _cached(entry.finish(arrays), name)
    return _cached(_decode(path, image_size, cache, identity), name)


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
    classes = [str(name) for name in digits.target_names]
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
    rows, classes, labels = _index(path, names)
    for shape in (None, (image_size, image_size)):
        entry = _Entry(cache, f"{identity[:24]}-{shape[0] if shape else 'native'}")
        try:
            members = held.items() if held else _members(path, rows.__contains__)
            files = ((name, content) for name, content in members if name in rows)
            train, test = _fill(path, files, rows, labels, shape, image_size, entry)
        except _SizesDiffer:
            entry.discard()
        except BaseException:
            entry.discard()
            raise
        else:
            return entry.finish(Arrays("", classes, train, labels["train"], test, labels["test"]))
    raise AssertionError("the second pass resizes every image, so sizes cannot differ")


class _SizesDiffer(Exception):
    """The images cannot be kept as they are: their sizes differ or exceed the wanted one."""


def _names(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """(names of all image files, their contents if `path` is an archive of moderate size: it is then read once)."""
    hold = path.is_file() and path.stat().st_size < HELD
    files = tqdm(_members(path, lambda _: hold), f"reading {path.name}", unit="image", leave=False)
    found = dict(files)
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


def _members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Each image file of a tree or archive as (relative posix name, its bytes if wanted, else nothing)."""
    if path.is_dir():
        for file in _walk(path):
            name = file.relative_to(path).as_posix()
            if _is_image(name):
                yield name, _content(path, file) if wanted(name) else b""
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if _is_image(info.filename) and not info.is_dir():
                        yield info.filename, archive.read(info) if wanted(info.filename) else b""
        else:
            with _Stream(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    if not _is_image(member.name) or member.isdir():
                        continue
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is None:
                        raise InputError(f"data is {str(path)!r}, whose {member.name!r} is a link; archive plain files")
                    yield member.name, content.read() if wanted(member.name) else b""
                stream.check_end()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            "is it complete?"
        ) from error


class _Stream:
    """The bytes of a tar archive, decompressed, which must end as an archive ends: tarfile does not ask for that."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(6)
        opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start[:2], open)
        self.file = opened(path, "rb")  # type: ignore[operator]
        self.end = b""

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.end = (self.end + block)[-512:]
        return block

    def check_end(self) -> None:
        while self.read(1 << 20):
            pass
        if len(self.end) < 512 or self.end.strip(b"\0"):
            raise tarfile.ReadError("it ends in the middle")

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _content(path: Path, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"data is {str(path)!r}, of which {str(file)!r} cannot be read ({error.strerror})") from error


def _is_image(name: str) -> bool:
    """An image by its extension; hidden files and the shadow folders of macOS archives are none."""
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") or part == "__MACOSX" for part in parts)
    return name.lower().endswith(IMAGE_ENDINGS) and not hidden


def _fill(
    path: Path,
    files: Iterator[tuple[str, bytes]],
    rows: dict[str, tuple[str, int]],
    labels: dict[str, np.ndarray],
    shape: tuple[int, int] | None,
    image_size: int,
    entry: "_Entry",
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes every indexed file into its row of (train, test); without a `shape`, the first image sets it."""
    arrays: dict[str, np.ndarray] = {}
    workers = min(os.cpu_count() or 1, len(rows) // PER_WORKER)
    with (
        # Processes, since PIL keeps Python's lock while it decodes; new ones, since a fork of torch's threads may hang.
        ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else contextlib.nullcontext() as pool,
        tqdm(total=len(rows), desc=f"decoding {path.name}", unit="image", leave=False) as bar,
    ):
        for chunk in _chunks(files):
            shares = [chunk[start :: workers or 1] for start in range(workers or 1)]
            decode = functools.partial(_share, path, shape)
            for name, pixels in itertools.chain.from_iterable((pool.map if pool else map)(decode, shares)):
                if not arrays:
                    if max(pixels.shape[:2]) > image_size:
                        raise _SizesDiffer
                    arrays = {p: entry.array(p, (len(labels[p]), *pixels.shape)) for p in ("train", "test")}
                part, row = rows[name]
                if pixels.shape != arrays[part].shape[1:]:
                    raise _SizesDiffer
                arrays[part][row] = pixels
            bar.update(len(chunk))
    return arrays["train"], arrays["test"]


def _chunks(items: Iterator[tuple[str, bytes]], megabytes: int = 64) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of at most 1024 encoded files or so many megabytes, so that a tree larger than memory streams through."""
    chunk: list[tuple[str, bytes]] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += len(item[1])
        if len(chunk) == 1024 or held > megabytes << 20:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _share(path: Path, shape: tuple[int, int] | None, files: list[tuple[str, bytes]]) -> list[tuple[str, np.ndarray]]:
    return [(name, _pixels(path, name, encoded, shape)) for name, encoded in files]


def _pixels(path: Path, name: str, encoded: bytes, shape: tuple[int, int] | None) -> np.ndarray:
    """uint8 (h, w, 3) of one encoded image: turned upright by its EXIF tag, as RGB, squeezed to `shape` if given."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            plain = picture.format == "JPEG" and not picture.info.keys() & {"exif", "xmp"}
            upright = picture if plain else ImageOps.exif_transpose(picture)  # which takes as long as decoding
            if upright.mode.startswith("I"):  # 16-bit grey, which PIL's convert would clip to white
                upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
            rgb = upright.convert("RGB")
            return np.asarray(rgb.resize(shape, Image.Resampling.BILINEAR) if shape else rgb)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"data is {str(path)!r}, whose image {name!r} cannot be decoded ({error}); repair or remove it"
        ) from error


ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is an error, whatever another library has set


# --- cache -----------------------------------------------------------------------------------------------------


class _Entry:
    """A cache folder in the making: invisible until `finish` renames it into place."""

    def __init__(self, cache: Path, name: str) -> None:
        self.final = cache / name
        self.working = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        self.working.chmod(0o755)

    def array(self, part: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.lib.format.open_memmap(self.working / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)

    def finish(self, arrays: Arrays) -> Path:
        meta = {
            "classes": arrays.classes,
            "train_labels": arrays.train_labels.tolist(),
            "test_labels": arrays.test_labels.tolist(),
            "fingerprint": arrays.fingerprint(),
        }
        (self.working / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            self.working.rename(self.final)
        except OSError:  # another process was first, and made the same
            if not self.final.is_dir():
                raise
            self.discard()
        return self.final

    def discard(self) -> None:
        shutil.rmtree(self.working, ignore_errors=True)


def _cached(entry: Path, name: str) -> tuple[Arrays, str]:
    meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    # Copy-on-write, since torch has no read-only tensors: a stray write could never reach the file.
    train, test = (np.load(entry / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in ("train", "test"))
    labels = [np.array(meta[f"{part}_labels"], np.int64) for part in ("train", "test")]
    return Arrays(name, meta["classes"], train, labels[0], test, labels[1]), meta["fingerprint"]


def _identity(path: Path) -> str:
    """Names the decoder and what is on disk: an archive by its bytes, a tree by its files' names, sizes and times."""
    sha = hashlib.sha256(Path(__file__).read_bytes() + PIL.__version__.encode())
    if path.is_file():
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()
    for found in _walk(path):
        state = found.stat()
        line = f"{found}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
        sha.update(line.encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


def _walk(path: Path) -> Iterator[Path]:
    """Each file below the folder `path`, sorted. Raises InputError for what cannot be read: nothing is passed over."""

    def stop(error: OSError) -> None:
        raise error

    try:
        for parent, folders, files in os.walk(path, followlinks=True, onerror=stop):
            folders.sort()
            for name in sorted(files):
                Path(parent, name).stat()
                yield Path(parent, name)
    except OSError as error:
        raise InputError(
            f"data is {str(path)!r}, of which {error.filename!r} cannot be read ({error.strerror})"
        ) from error
