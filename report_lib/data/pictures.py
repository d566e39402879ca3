"""One image file -> pixels, whatever its format, mode, depth and metadata. What a file holds decides, not its name."""

import contextlib
import io
import os
import warnings
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from report_lib.files import InputError, check_plain

with contextlib.suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()

Image.init()
# PIL knows more, some of which it hands to another program (EPS to Ghostscript).
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "HEIF", "ICO", "PSD",
                 "QOI", "PCX", "SGI", "FITS")
    if name in Image.OPEN
)  # fmt: skip
UNSIGNED = ("TGA",)  # nothing in such a file says what it is, so its ending must
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
ENDINGS = {e for e, name in Image.registered_extensions().items() if name in (*FORMATS, *UNSIGNED)} | {
    ".heic", ".heif", ".hif",
}  # fmt: skip
DARK = 16  # of 255; a picture without any brighter value looks black
ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is an error, whatever another library has set

Content = bytes | Path  # of an image file, or where it is


class Seen(NamedTuple):
    """What a first look at a file says."""

    problem: str = ""  # why it cannot be decoded
    other: bool = False  # that it is no image at all
    size: tuple[int, int] = (0, 0)  # upright (width, height)
    deep: bool = False  # whether its values have more than 8 bits
    values: tuple[float, float] | None = None  # the least and largest of those
    integer: bool = True  # whether they are whole numbers
    odd: tuple[str, ...] = ()  # keys of ODD


ODD = {
    "frames": "Pictures of several frames or pages, of which the first is used",
    "upper": "Pictures of several channels with more than 8 bits each, of which the upper 8 are used",
    "undefined": "Pictures with values that are no numbers, which become the lowest value",
    "single": "Pictures of a single colour",
    "dark": f"Pictures that are black or nearly so (no value is above {DARK} of 255)",
}


def has_image_ending(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS


class _Undecodable(Exception):
    """(why an image cannot be decoded, whether it is no image at all)."""


def examine(name: str, content: Content) -> Seen:
    """A first look at a file: its header, and the range of its values if it has more than 8 bits for each.

    Raises InputError if it cannot be read.
    """
    try:
        return _opened(_examined, name, content)
    except _Undecodable as error:
        return Seen(*error.args)


def decode(
    name: str, content: Content, shape: tuple[int, int] | None = None, values: tuple[float, float] | None = None
) -> np.ndarray | str:
    """uint8 (h, w, 3) of one image file, upright, as RGB, squeezed to `shape` (h, w) if given; or why it cannot be
    decoded.

    `values` of a picture of more than 8 bits become 0 to 255; by default, its own least and largest.
    Raises InputError if it cannot be read.
    """

    def decoded(picture: Image.Image) -> np.ndarray:
        rgb = _shallow(_upright(picture), values).convert("RGB")
        return np.asarray(rgb.resize(shape[::-1], Image.Resampling.BILINEAR) if shape else rgb)

    try:
        return _opened(decoded, name, content)
    except _Undecodable as error:
        return error.args[0]


def _opened(look, name: str, content: Content):  # type: ignore[no-untyped-def]
    """What `look` makes of the open picture; metadata never decide whether its pixels can be used.

    Raises _Undecodable if nothing can be made of it.
    """
    formats = FORMATS + UNSIGNED * has_image_ending(name)
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=formats) as picture:
            return look(picture)
    except Exception as error:  # whatever a decoder makes of damage
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not PIL's
            raise InputError(f"{str(content)!r} cannot be read ({error.strerror})") from error
        whole = content if isinstance(content, bytes) else content.read_bytes()
        if bare := _bare(whole):
            with contextlib.suppress(Exception), Image.open(io.BytesIO(bare), formats=formats) as picture:
                return look(picture)
        if not isinstance(error, UnidentifiedImageError):
            raise _Undecodable(next(iter(str(error).splitlines()), type(error).__name__)) from error
        if whole[4:8] == b"ftyp" and whole[8:12] in HEIC:
            raise _Undecodable("it is HEIC; to read it: pip install pillow-heif") from error
        raise _Undecodable(f"it is none of {', '.join(FORMATS)}", not has_image_ending(name)) from error


def _bare(content: bytes) -> bytes:
    """A PNG or JPEG without what its pixels do not need; nothing of other files."""
    kept = []
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        start = 8
        while start < len(content):
            end = start + 12 + int.from_bytes(content[start : start + 4], "big")
            if content[start + 4 : start + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
                kept.append(content[start:end])
            start = end
        return content[:8] + b"".join(kept)
    if content.startswith(b"\xff\xd8\xff"):
        start = 2
        while content[start : start + 1] == b"\xff" and content[start + 1] != 0xDA:  # until the pixels
            end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
            adobe = content[start + 1] == 0xEE and end - start == 16  # it says how colours are stored
            if adobe or content[start + 1] not in (*range(0xE0, 0xF0), 0xFE):
                kept.append(content[start:end])
            start = end
        return content[:2] + b"".join(kept) + content[start:]
    return b""


def oddity(pixels: np.ndarray) -> str:
    """The key of ODD for a decoded picture on which there is nothing to see, else nothing."""
    if pixels.max() <= DARK:
        return "dark"
    return "single" if (pixels == pixels[:1, :1]).all() else ""


def _examined(picture: Image.Image) -> Seen:
    if picture.format == "PNG" and not _tagged(picture) and _late_exif(picture):
        picture.load()
    tags = getattr(picture, "tag_v2", {})  # a TIFF's size, which PIL may have turned already
    width, height = tags.get(256, picture.size[0]), tags.get(257, picture.size[1])
    if _tagged(picture):
        with contextlib.suppress(Exception):
            if picture.getexif().get(0x0112) in (5, 6, 7, 8):  # it lies on its side
                width, height = height, width
    odd = ["frames"] * (getattr(picture, "is_animated", False) and picture.format != "MPO")
    if not _deep(picture):
        odd += ["upper"] * (";16" in str(getattr(picture, "tile", [])[:1]))
        return Seen(size=(width, height), odd=tuple(odd))
    stored = np.asarray(picture)
    odd += ["undefined"] * (not np.isfinite(stored).all())
    return Seen("", False, (width, height), True, _range(stored), picture.mode != "F", tuple(odd))


def _range(stored: np.ndarray) -> tuple[float, float] | None:
    defined = stored[np.isfinite(stored)]
    return (float(defined.min()), float(defined.max())) if defined.size else None


def _deep(picture: Image.Image) -> bool:
    return picture.mode.startswith(("I", "F"))


def _tagged(picture: Image.Image) -> bool:
    """Whether something may say that the picture lies on its side; to ask PIL takes as long as decoding."""
    return picture.format == "TIFF" or bool(picture.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp"})


def _late_exif(picture: Image.Image) -> bool:
    """Whether a PNG says how it lies, maybe behind its pixels, which are not decoded yet."""
    file: BinaryIO = picture.fp  # type: ignore[attr-defined]
    at = file.tell()
    file.seek(0)
    found = b"eXIf" in file.read()
    file.seek(at)
    return found


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()  # what fails here is no fault of the metadata
    if _tagged(picture):
        with contextlib.suppress(Exception):
            return ImageOps.exif_transpose(picture)
    return picture


def _shallow(picture: Image.Image, values: tuple[float, float] | None) -> Image.Image:
    """The picture with 8 bits for each value; PIL's convert would clip deeper ones to white, or to black."""
    if not _deep(picture):
        return picture
    stored = np.asarray(picture).astype(np.float64)
    low, high = values or scale([own] if (own := _range(stored)) else [], picture.mode != "F")
    levels = np.nan_to_num(stored, nan=low, posinf=high, neginf=low).clip(low, high)
    return Image.fromarray(((levels - low) * (255 / (high - low)) + 0.5).astype(np.uint8))


def scale(ranges: list[tuple[float, float]], integer: bool) -> tuple[float, float]:
    """The values that become 0 and 255, from the ranges of all pictures: their real range, or the declared depth where
    that is a single value."""
    low, high = min((low for low, _ in ranges), default=0.0), max((high for _, high in ranges), default=0.0)
    if low < high:
        return low, high
    return min(low, 0.0), max(high, 65535.0 if integer else 1.0)


def read_picture(
    path: str | os.PathLike, shape: tuple[int, int] | None = None, values: tuple[float, float] | None = None
) -> np.ndarray:
    """uint8 (h, w, 3) of one image file, decoded as those of a data set are: squeezed to their stored size `shape`
    (h, w), with their range of `values` scaled to 0 to 255 if it has more than 8 bits. Raises InputError if it is no
    image."""
    check_plain("image", str(path))
    with warnings.catch_warnings(action="ignore"):  # of metadata
        pixels = decode(str(path), Path(path), shape, values)
    if isinstance(pixels, str):
        raise InputError(f"image is {str(path)!r}, which cannot be decoded ({pixels})")
    return pixels
