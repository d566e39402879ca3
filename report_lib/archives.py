"""The files of a class-folder tree or archive, as a stream of names and bytes. Nothing is ever extracted."""

import bz2
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
from pathlib import Path, PurePosixPath

from report_lib.recipe import InputError

# As torchvision's ImageFolder has them.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LARGEST = 1 << 28  # bytes of one image file; a member that claims more is no photograph
LARGEST_HEADER = 1 << 20  # bytes of a tar header that holds a long name or attributes
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
              tarfile.GNUTYPE_LONGLINK)  # fmt: skip
# An archive may unpack to so many bytes, or to so many times its own size if that is more.
UNPACKED, RATIO = 4 << 30, 100


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Each image file of a tree or archive as (relative posix name, its bytes if wanted, else nothing).

    Raises InputError for what cannot be read whole, and for what no honest archive of images has.
    """
    if path.is_dir():
        for file in walk(path):
            name = file.relative_to(path).as_posix()
            if _is_image(name):
                yield name, _content(path, file) if wanted(name) else b""
        return
    seen: set[str] = set()
    try:
        for raw, size, content in _zipped(path) if zipfile.is_zipfile(path) else _tarred(path):
            _check_member(path, raw, size)
            name = str(PurePosixPath(raw))  # ./train/a/0.png is train/a/0.png
            if name in seen:
                raise InputError(f"data is {str(path)!r}, which holds {name!r} twice; pack it anew")
            seen.add(name)
            yield name, content() if wanted(name) else b""
    except InputError:
        raise
    except (
        tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error,
        lzma.LZMAError, zlib.error,
    ) as error:  # fmt: skip
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            "is it complete?"
        ) from error


def _zipped(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(name as it stands there, size in bytes, what reads its content) of each image in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        _check_unpacked(path, sum(info.file_size for info in archive.infolist()))
        if len(archive.infolist()) != _announced(path):  # a damaged length makes zipfile skip what follows
            raise zipfile.BadZipFile("its directory is damaged")
        for info in archive.infolist():
            archive.open(info).close()  # raises where a damaged name would make an image vanish unread
            if not _is_image(info.filename) or info.is_dir():
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # which zipfile unpacks unbounded
                raise InputError(
                    f"data is {str(path)!r}, whose {info.filename!r} is neither stored nor deflated; pack it anew"
                )
            yield info.filename, info.file_size, functools.partial(_inflated, archive, info)


def _announced(path: Path) -> int:
    """How many members a zip archive says that it holds; zipfile does not ask."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), os.SEEK_END)
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    large = tail[max(end - 76, 0) : end]  # there, if the archive is a zip64
    return int.from_bytes(large[32:40], "little") if large.startswith(b"PK\6\6") else count


def _inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(info.file_size)  # without a size, it would inflate whatever is there before it looks


def _tarred(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(name as it stands there, size in bytes, what reads its content) of each image in a tar archive, in order."""
    with (
        _Stream(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive,  # type: ignore[call-overload]
    ):
        while (member := archive.next()) is not None:
            archive.members.clear()  # else it keeps every header
            if not _is_image(member.name) or member.isdir():
                _check_unpacked(path, stream.unpacked + member.size)  # before all of that is passed over
                continue
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise InputError(f"data is {str(path)!r}, whose {member.name!r} is a link; archive plain files")
            yield member.name, member.size, content.read
        while block := archive.fileobj.read(1 << 20):
            if block.strip(b"\0"):
                raise tarfile.ReadError("something follows its end")


class _Header(tarfile.TarInfo):
    """A tar header; tarfile would take a damaged one for the end of the archive, and believe any size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not buf.strip(b"\0"):  # as an archive ends
                raise
            raise tarfile.ReadError(f"{error}, where a header should be") from error
        if header.size < 0 or (header.type in EXTENSIONS and header.size > LARGEST_HEADER):
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            cls._proc_gnusparse_10()
        return header

    @staticmethod
    def _proc_gnusparse_10(*_: object) -> None:
        """In place of tarfile's, which reads a list of any length; no image has holes."""
        raise tarfile.ReadError("it holds a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10


def _check_member(path: Path, name: str, size: int) -> None:
    """Raises InputError for what no honest archive of images has. Nothing is extracted, so nothing could escape."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise InputError(f"data is {str(path)!r}, whose {name!r} leads out of the archive; pack it anew")
    _check_size(path, name, size)


def _check_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise InputError(f"data is {str(path)!r}, whose {name!r} holds {size >> 20:,} MiB; no image file is that large")


def _check_unpacked(path: Path, size: int) -> None:
    """Raises InputError if so many bytes cannot have been packed into an archive of images."""
    if size > max(UNPACKED, RATIO * path.stat().st_size):
        raise InputError(
            f"data is {str(path)!r}, which unpacks to over {UNPACKED >> 30} GiB and {RATIO} times its size; images "
            "are not packed so tightly, so pack them alone"
        )


class _Stream:
    """The bytes of a tar archive, decompressed and counted."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(6)
        opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start[:2], open)
        self.path = path
        self.file = opened(path, "rb")  # type: ignore[operator]
        self.unpacked = 0

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.unpacked += len(block)
        _check_unpacked(self.path, self.unpacked)
        return block

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _content(path: Path, file: Path) -> bytes:
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe, say, which may never say anything
            raise InputError(f"data is {str(path)!r}, of which {str(file)!r} is no plain file; remove it")
        _check_size(path, str(file), state.st_size)
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"data is {str(path)!r}, of which {str(file)!r} cannot be read ({error.strerror})") from error


def _is_image(name: str) -> bool:
    """An image by its extension; hidden files and the shadow folders of macOS archives are none."""
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") or part == "__MACOSX" for part in parts)
    return name.lower().endswith(IMAGE_ENDINGS) and not hidden


def walk(path: Path) -> Iterator[Path]:
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
