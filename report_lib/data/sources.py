"""Sources of images -> uint8 tensors: scikit-learn's digits, CIFAR-10, any tree or archive of class folders."""

import functools
import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL

from report_lib.config import Config
from report_lib.data import archives, decoded, folders, pictures, trees
from report_lib.data.tensors import Images
from report_lib.files import CACHE, InputError, check_plain, check_writable, folder, locate, walk

# What decides how files become pixels, as it was imported.
CODE = "".join(inspect.getsource(module) for module in (archives, folders, pictures, trees))


def load(source: Config | str, image_size: int | None = None, cache: str = "") -> Images:
    """The images of a config's source, or of a named one: "digits", "cifar10", or the path of a tree or archive. They
    are decoded on the first call and memory-mapped from the folder `cache` afterwards (default: $REPORT_CACHE, or
    .cache in the project).

    Images that all share one size not above `image_size` keep it; otherwise each becomes a square of `image_size`
    (bilinear with antialiasing, torchvision's `Resize((s, s))`). Raises InputError if there is no such source, if it
    cannot be downloaded, read or decoded, or if the cache cannot be written.
    """
    asked, size, where = _asked(source, image_size, cache)
    key = _key(asked)
    images = _stored(asked, size, where, key)
    decoded.remember(where, f"{key}-{size}", images.fingerprint)
    return images


def fingerprint(source: Config | str, image_size: int | None = None, cache: str = "") -> str:
    """`load(...).fingerprint`, without touching a picture if these files were loaded before."""
    name, size, where = _asked(source, image_size, cache)
    return decoded.recall(where, f"{_key(name)}-{size}") or load(source, image_size, cache).fingerprint


def _asked(source: Config | str, image_size: int | None, cache: str) -> tuple[str, int, Path]:
    name, size = (source.data, source.image_size) if isinstance(source, Config) else (source, 0)
    check_plain("data", name)
    return name, image_size or size, folder(cache, *CACHE)


def _key(source: str) -> str:
    """Names the decoder and what is on disk, by the files' names, sizes and times."""
    sha = hashlib.sha256(repr((CODE, PIL.__version__, pictures.FORMATS, trees.skipping())).encode())
    if source == "digits":
        sha.update((importlib.metadata.version("scikit-learn") + DIGITS_CODE).encode())
    elif source != "cifar10":
        for file, state in walk(locate(source)):
            line = f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"
            sha.update(line.encode("utf-8", "surrogateescape"))
    return f"{source if source in NAMES else 'files'}-{sha.hexdigest()[:24]}"


def _digits(_: int, final: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits, 8 x 8; every fifth image of each class tests."""
    from sklearn.datasets import load_digits  # late: it takes 2 s, and the cache has them from then on

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    rank = np.array([(labels[:at] == label).sum() for at, label in enumerate(labels)])
    parts = {"train": rank % 5 != 4, "test": rank % 5 == 4}
    # As words: "gains most on seven" can be read, "gains most on 7 (+9.1 points)" cannot.
    classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    split = ({part: array[rows] for part, rows in parts.items()} for array in (pixels, labels))
    return _written(final, classes, *split)


def _stored(source: str, image_size: int, cache: Path, key: str) -> Images:
    """The images of a source that is decoded into the cache, or lies there."""
    name = NAMES.get(source) or locate(source).name.split(".")[0]
    native, sized = (cache / f"decoded-{key}-{size}" for size in ("native", image_size))
    make = MADE.get(source) or functools.partial(trees.decode, locate(source))
    for entry in (native, sized):
        images = decoded.cached(entry, name)
        if images and (entry != native or source in MADE or max(images.train.shape[1:3]) <= image_size):
            return images
    check_writable(cache, "cache")
    if images := decoded.cached(make(image_size, native), name):
        return images
    raise InputError(f"cache is {str(cache)!r}, where an entry does not stay as it was written; check that disk")


def _cifar10(_: int, final: Path) -> Path:
    """CIFAR-10 as torchvision serves it; its archive and each file in it are checked against their md5."""
    from torchvision.datasets import CIFAR10

    where = final.parent / "torchvision"
    try:
        sets = {part: CIFAR10(str(where), train=part == "train", download=True) for part in ("train", "test")}
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data is 'cifar10', which could not be downloaded into {where} ({error}); connect once, or copy "
            f"{CIFAR10.filename} there, or give DATA=digits or DATA=<folder or archive>"
        ) from error
    pixels = {part: images.data for part, images in sets.items()}
    labels = {part: np.asarray(images.targets, np.int64) for part, images in sets.items()}
    return _written(final, list(sets["train"].classes), pixels, labels)


def _written(final: Path, classes: list[str], pixels: dict, labels: dict) -> Path:
    """The entry `final` of the cache, with these arrays by part."""
    with decoded.writing(final, {p: len(rows) for p, rows in pixels.items()}, pixels["train"].shape[1:3]) as arrays:
        for part, rows in pixels.items():
            arrays[part][:] = rows
        decoded.finish(arrays, classes, labels)
    return final


NAMES = {"digits": "handwritten digits (scikit-learn)", "cifar10": "CIFAR-10"}
MADE: dict[str, Callable[[int, Path], Path]] = {"digits": _digits, "cifar10": _cifar10}  # whatever size is asked for
DIGITS_CODE = inspect.getsource(_digits)
