"""The files of a class-folder tree or archive, one after another. Nothing is ever extracted."""

import bz2
import contextlib
import functools
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from report_lib.files import InputError

LARGEST_HEADER = 1 << 20  # bytes of tar headers between two files, long names and attributes included
# An archive may unpack to so many bytes, or to so many times its own size if that is more.
UNPACKED, RATIO = 4 << 30, 100
UNDECLARED = "Some names are in an encoding that the archive does not declare, so their letters may be wrong."
OTHERS = {b"Rar!": "rar", b"7z\xbc\xaf": "7z"}  # by the first bytes
WRAP = 1 << 32  # where macOS starts to count anew in zip archives of more than 4 GiB


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
        for member, read in (_walked if path.is_dir() else _zipped if zipfile.is_zipfile(path) else _tarred)(path):
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
        kind = _other_kind(path)
        question = f"it is {kind}, so unpack it or pack it anew as zip or tar" if kind else "is it complete?"
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            f"{question}"
        ) from error


def _other_kind(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return OTHERS.get(file.read(4), "")
    return ""


def walk(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each folder and file below the folder `path`, sorted; or `path` itself if that is a file.

    Raises InputError for what cannot be read: nothing is passed over.
    """

    def stop(error: OSError) -> None:
        raise error

    try:
        if path.is_file():
            yield path, path.stat()
            return
        for parent, folders, files in os.walk(path, followlinks=True, onerror=stop):
            folders.sort()
            for link in (Path(parent, name) for name in folders if Path(parent, name).is_symlink()):
                if Path(parent).resolve().is_relative_to(link.resolve()):
                    raise InputError(
                        f"data is {str(path)!r}, whose {link.relative_to(path).as_posix()!r} is a link to a folder "
                        "that it lies in; remove it"
                    )
            for name in (*folders, *sorted(files)):
                yield Path(parent, name), Path(parent, name).stat()
    except OSError as error:
        raise InputError(
            f"data is {str(path)!r}, of which {error.filename!r} cannot be read ({error.strerror})"
        ) from error


def _walked(path: Path) -> Iterator[tuple[Member, Path]]:
    for file, state in walk(path):
        name = file.relative_to(path).as_posix() + "/" * stat.S_ISDIR(state.st_mode)
        # To read a pipe may never end.
        yield Member(name, state.st_size, "" if stat.S_ISREG(state.st_mode) else "no plain file; remove it"), file


def _zipped(path: Path) -> Iterator[tuple[Member, Read]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check_unpacked(path, sum(info.file_size for info in infos), _most(path))
        if (len(infos) - _announced(path)) % (1 << 16):  # a damaged length makes zipfile skip what follows
            raise zipfile.BadZipFile("its directory is damaged")
        _unwrap(infos)
        for info in infos:
            if info.flag_bits & 1:
                raise InputError(f"data is {str(path)!r}, which is encrypted; pack it without a password")
            archive.open(info).close()  # raises where a damaged name would make an image vanish unread
            name, note = _decoded(info)
            packed = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            trouble = "" if packed else "neither stored nor deflated; pack it anew"  # zipfile unpacks that unbounded
            windows = "/" not in name.rstrip("/")
            member = Member(name.replace("\\", "/") if windows else name, info.file_size, trouble, note)
            yield member, functools.partial(_inflated, archive, info)


def _announced(path: Path) -> int:
    """How many members a zip archive says that it holds, modulo 2**16; zipfile does not ask."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), os.SEEK_END)
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    large = tail[max(end - 76, 0) : end]  # there, if the archive is a zip64
    return int.from_bytes(large[32:40] if large.startswith(b"PK\6\6") else tail[end + 10 : end + 12], "little")


def _unwrap(infos: list[zipfile.ZipInfo]) -> None:
    """Mends the places of members in an archive of more than 4 GiB as macOS makes it: without zip64, modulo 2**32."""
    base = infos[0].header_offset if infos else 0
    if not base or base % WRAP:
        return
    turns = last = 0
    for info in infos:
        place = info.header_offset - base
        turns += place < last
        last, info.header_offset = place, place + turns * WRAP
        if hasattr(info, "_end_offset"):  # computed from the wrong places
            info._end_offset = None


def _decoded(info: zipfile.ZipInfo) -> tuple[str, str]:
    """(name, note): the name is UTF-8 where that fits, as macOS writes it without saying so, and else code page 437."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename, ""
    try:
        return info.filename.encode("cp437").decode(), ""
    except UnicodeError:
        return info.filename, UNDECLARED


def _inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(info.file_size)  # without a size, it would inflate whatever is there before it looks


def _tarred(path: Path) -> Iterator[tuple[Member, Read]]:
    stream = _Stream(path)
    with contextlib.closing(stream.file), tarfile.TarFile(fileobj=stream) as archive:  # type: ignore[arg-type]
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            trouble = "" if info.isfile() else "a link; archive plain files"
            if info.issparse():
                trouble = "a sparse file; pack it anew"
            if not info.isdir():
                yield Member(info.name, info.size, trouble), functools.partial(stream.take, info.size)
            else:
                yield Member(info.name + "/", 0), bytes
            stream.skip(archive.offset)
        if stream.header != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            raise tarfile.ReadError("a header is damaged or missing")
        while block := stream.take(1 << 20):
            if block.strip(b"\0"):
                raise tarfile.ReadError("something follows its end")


class _Stream:
    """The bytes of a tar archive, decompressed, counted and never gone back to; tarfile itself reads headers only."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(6)
        opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start[:2], open)
        self.path, self.most = path, _most(path)
        self.file = opened(path, "rb")  # type: ignore[operator]
        self.place = self.headers = 0  # bytes so far, and those of headers since the last file
        self.header = b""  # what was read last

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        self.headers += size
        if not 0 <= size <= self.headers <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.header = self.take(size)
        return self.header

    def take(self, size: int) -> bytes:
        block = self.file.read(size)
        self.place += len(block)
        _check_unpacked(self.path, self.place, self.most)
        return block

    def skip(self, place: int) -> None:
        """Goes forward to `place`, where the next header is."""
        _check_unpacked(self.path, place, self.most)
        while self.place < place and self.take(min(place - self.place, 1 << 20)):
            pass
        if self.place != place:
            raise EOFError("it ends within a file")
        self.headers = 0


def _most(path: Path) -> int:
    """How many bytes can have been packed into an archive of images."""
    return max(UNPACKED, RATIO * path.stat().st_size)


def _check_unpacked(path: Path, size: int, most: int) -> None:
    if size > most:
        raise InputError(
            f"data is {str(path)!r}, which unpacks to over {UNPACKED >> 30} GiB and {RATIO} times its size; images "
            "are not packed so tightly, so pack them alone"
        )
