"""The files of a class-folder tree or archive, one after another. Nothing is ever extracted."""

import bz2
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
from typing import NamedTuple

from report_lib.files import InputError, walk

UNDECLARED = "Some names are in an encoding that the archive does not declare, so their letters may be wrong."


class Member(NamedTuple):
    """A file or folder of a tree or archive."""

    name: str  # relative, with slashes; that of a folder ends in one
    size: int  # bytes
    trouble: str = ""  # why it cannot be read, and what to do
    note: str = ""  # what is odd about its name


Read = Callable[[], bytes]


def members(path: Path, wanted: Callable[[Member], bool]) -> Iterator[tuple[str, bytes | Path]]:
    """The names of files in a tree or archive, with what each holds: bytes, or the path to read. All files and folders
    are shown to `wanted`, which says whether it is one of them.

    Raises InputError for what cannot be read whole, and for what no honest archive of images has.
    """
    try:
        for member, read in (_walked if path.is_dir() else _zipped if zipfile.is_zipfile(path) else _tarred)(path):
            parts = member.name.split("/")
            if member.name.startswith("/") or ".." in parts:
                raise InputError(f"data is {str(path)!r}, whose {member.name!r} leads out of the archive; pack it anew")
            # ./train/a/0.png is train/a/0.png
            name = "/".join(part for part in parts if part not in ("", "."))
            member = member._replace(name=name + "/" * member.name.endswith("/"))
            if wanted(member):
                if member.trouble:
                    raise InputError(f"data is {str(path)!r}, whose {member.name!r} is {member.trouble}")
                yield member.name, read if isinstance(read, Path) else read()
    except InputError:
        raise
    except (
        tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error,
        lzma.LZMAError, zlib.error,
    ) as error:  # fmt: skip
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            "is it complete? Else unpack it and name the folder"
        ) from error


def _walked(path: Path) -> Iterator[tuple[Member, Path]]:
    for file, state in walk(path):
        name = file.relative_to(path).as_posix() + "/" * stat.S_ISDIR(state.st_mode)
        # To read a pipe may never end.
        yield Member(name, state.st_size, "" if stat.S_ISREG(state.st_mode) else "no plain file; remove it"), file


def _zipped(path: Path) -> Iterator[tuple[Member, Read]]:
    archive, note = _opened(path)
    with archive:
        infos = archive.infolist()
        announced = zipfile._EndRecData(archive.fp)[4]  # type: ignore[attr-defined]
        if (len(infos) - announced) % (1 << 16):  # macOS counts so; a damaged length makes zipfile skip what follows
            raise zipfile.BadZipFile("its directory is damaged")
        for info in infos:
            if info.flag_bits & 1:
                raise InputError(f"data is {str(path)!r}, which is encrypted; pack it without a password")
            archive.open(info).close()  # raises where a damaged name would make an image vanish unread
            windows = "/" not in info.filename.rstrip("/")
            name = info.filename.replace("\\", "/") if windows else info.filename
            yield Member(name, info.file_size, note=note), functools.partial(archive.read, info)


def _opened(path: Path) -> tuple[zipfile.ZipFile, str]:
    """(a zip archive, a note on its names): they are UTF-8 where that fits, as macOS writes it without saying so."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8"), ""
    except UnicodeDecodeError:
        return zipfile.ZipFile(path), UNDECLARED


def _tarred(path: Path) -> Iterator[tuple[Member, Read]]:
    with path.open("rb") as file:
        start = file.read(2)
    opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start, open)
    with opened(path, "rb") as file, tarfile.TarFile(fileobj=file, tarinfo=_Header) as archive:  # type: ignore
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            if info.isdir():
                yield Member(info.name + "/", 0), bytes
            else:
                trouble = "" if info.isfile() and not info.issparse() else "a link or sparse; archive plain files"
                yield Member(info.name, info.size, trouble), functools.partial(file.read, info.size)
        while file.read(1 << 20):
            pass  # to the checksum at the end


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
