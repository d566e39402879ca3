"""The files of a class-folder tree or archive, one after another. Nothing is ever extracted."""

import bz2
import contextlib
import functools
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from report_lib.files import InputError, walk

LARGEST_HEADER = 1 << 20  # bytes of a tar header, a long name or attributes
# An archive may unpack to so many bytes, or to so many times its own size if that is more.
UNPACKED, RATIO = 4 << 30, 100
UNDECLARED = "Some names are in an encoding that the archive does not declare, so their letters may be wrong."
UNPACK, ARRAYS = "unpack it or pack it anew as zip or tar", "write its pictures as image files"
# What else comes instead, by its first bytes: its kind, and what to do.
OTHERS = {
    b"Rar!": ("rar", UNPACK), b"7z\xbc\xaf": ("7z", UNPACK), b"(\xb5/\xfd": ("zstd", UNPACK),
    b"]\0\0\x80": ("lzma", UNPACK), b"]\0\0\0": ("lzma", UNPACK), b"]\0\0\4": ("lzma", UNPACK),
    b"\x93NUM": ("an array of numpy's", ARRAYS), b"\x89HDF": ("HDF5", ARRAYS), b"PAR1": ("Parquet", ARRAYS),
}  # fmt: skip


class Member(NamedTuple):
    """A file or folder of a tree or archive."""

    name: str  # relative, with slashes; that of a folder ends in one
    size: int  # bytes
    trouble: str = ""  # why it cannot be read, and what to do
    note: str = ""  # what is odd about its name


Read = Callable[[], bytes]


def members(path: Path, wanted: Callable[[Member], bool]) -> Iterator[tuple[Member, bytes | Path | None]]:
    """Each file and folder of a tree or archive, with what it holds if it is wanted: bytes, or the path to read.

    Raises InputError for what cannot be read whole, and for what no honest archive of images has.
    """
    try:
        for member, read in (_walked if path.is_dir() else _zipped if _is_zip(path) else _tarred)(path):
            parts = member.name.split("/")
            if member.name.startswith("/") or ".." in parts:
                raise InputError(f"data is {str(path)!r}, whose {member.name!r} leads out of the archive; pack it anew")
            # ./train/a/0.png is train/a/0.png
            name = "/".join(part for part in parts if part not in ("", "."))
            member = member._replace(name=name + "/" * member.name.endswith("/"))
            asked = wanted(member)
            if asked and member.trouble:
                raise InputError(f"data is {str(path)!r}, whose {member.name!r} is {member.trouble}")
            yield member, None if not asked else read if isinstance(read, Path) else read()
    except InputError:
        raise
    except (
        tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error,
        lzma.LZMAError, zlib.error,
    ) as error:  # fmt: skip
        kind, what = _other_kind(path)
        advice = f"it is {kind}, so {what}" if kind else "is it complete? Else unpack it and name the folder"
        if not kind and not {".tar", ".zip", ".tgz", ".txz", ".tbz2"} & {each.lower() for each in path.suffixes}:
            advice = "it takes a folder with train/ and test/, or an archive of one"
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            f"{advice}"
        ) from error


def _is_zip(path: Path) -> bool:
    """Whether it is a zip archive, and no tar archive in which one lies: zipfile looks for its end alone."""
    if not zipfile.is_zipfile(path):
        return False
    with path.open("rb") as file, contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        return False
    return True


def _other_kind(path: Path) -> tuple[str, str]:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return OTHERS.get(file.read(4), ("", ""))
    return "", ""


def _walked(path: Path) -> Iterator[tuple[Member, Path]]:
    for file, state in walk(path):
        name = file.relative_to(path).as_posix() + "/" * stat.S_ISDIR(state.st_mode)
        # To read a pipe may never end.
        yield Member(name, state.st_size, "" if stat.S_ISREG(state.st_mode) else "no plain file; remove it"), file


def _zipped(path: Path) -> Iterator[tuple[Member, Read]]:
    archive, note = _opened(path)
    with archive:
        infos = archive.infolist()
        _check_unpacked(path, sum(info.file_size for info in infos))
        announced = zipfile._EndRecData(archive.fp)[4]  # type: ignore[attr-defined]
        if (len(infos) - announced) % (1 << 16):  # macOS counts so; a damaged length makes zipfile skip what follows
            raise zipfile.BadZipFile("its directory is damaged")
        for info in infos:
            if info.flag_bits & 1:
                raise InputError(f"data is {str(path)!r}, which is encrypted; pack it without a password")
            archive.open(info).close()  # raises where a damaged name would make an image vanish unread
            packed = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            trouble = "" if packed else "neither stored nor deflated; pack it anew"  # zipfile unpacks that unbounded
            windows = "/" not in info.filename.rstrip("/")
            name = info.filename.replace("\\", "/") if windows else info.filename
            yield Member(name, info.file_size, trouble, note), functools.partial(_inflated, archive, info)


def _opened(path: Path) -> tuple[zipfile.ZipFile, str]:
    """(a zip archive, a note on its names): they are UTF-8 where that fits, as macOS writes it without saying so."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8"), ""
    except UnicodeDecodeError:
        return zipfile.ZipFile(path), UNDECLARED


def _inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(info.file_size)  # without a size, it would inflate whatever is there before it looks


def _tarred(path: Path) -> Iterator[tuple[Member, Read]]:
    with path.open("rb") as file:
        start = file.read(2)
    opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start, open)
    with opened(path, "rb") as file, tarfile.TarFile(fileobj=_Headers(file), tarinfo=_Header) as archive:  # type: ignore
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            if info.isdir():
                yield Member(info.name + "/", 0), bytes
            else:
                trouble = "" if info.isfile() and not info.issparse() else "a link or sparse; archive plain files"
                yield Member(info.name, info.size, trouble), functools.partial(file.read, info.size)
            _check_unpacked(path, archive.offset)
        while block := file.read(1 << 20):  # to the checksum at the end
            _check_unpacked(path, file.tell())
            if block.strip(b"\0"):
                raise tarfile.ReadError("something follows its end, as where archives were joined")


class _Header(tarfile.TarInfo):
    """A header that is there and whole; tarfile takes any other for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"a header is damaged or missing: {error}") from error


class _Headers:
    """An archive's file, from which tarfile reads headers, and none that would fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _check_unpacked(path: Path, size: int) -> None:
    """Raises InputError if no images can have been packed so tightly."""
    if size > max(UNPACKED, RATIO * path.stat().st_size):
        raise InputError(
            f"data is {str(path)!r}, which unpacks to over {UNPACKED >> 30} GiB and {RATIO} times its size; images "
            "are not packed so tightly, so pack them alone"
        )
