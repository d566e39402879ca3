"""The files of a class-folder tree or archive, as a stream of names and bytes. Nothing is ever extracted."""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from report_lib.recipe import InputError

# As torchvision's ImageFolder has them.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LARGEST = 1 << 28  # bytes of one image file; a member that claims more is no photograph


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Each image file of a tree or archive as (relative posix name, its bytes if wanted, else nothing)."""
    if path.is_dir():
        for file in walk(path):
            name = file.relative_to(path).as_posix()
            if _is_image(name):
                yield name, _content(path, file) if wanted(name) else b""
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if _is_image(info.filename) and not info.is_dir():
                        _check_member(path, info.filename, info.file_size)
                        yield info.filename, archive.read(info) if wanted(info.filename) else b""
        else:
            with _Stream(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    if not _is_image(member.name) or member.isdir():
                        continue
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is None:
                        raise InputError(f"data is {str(path)!r}, whose {member.name!r} is a link; archive plain files")
                    _check_member(path, member.name, member.size)
                    yield member.name, content.read() if wanted(member.name) else b""
                stream.check_end()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"data is {str(path)!r}, which cannot be read as a tar or zip archive ({error or type(error).__name__}); "
            "is it complete?"
        ) from error


def _check_member(path: Path, name: str, size: int) -> None:
    """Raises InputError for what no honest archive of images has. Nothing is extracted, so nothing could escape."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise InputError(f"data is {str(path)!r}, whose {name!r} leads out of the archive; pack it anew")
    if size > LARGEST:
        raise InputError(f"data is {str(path)!r}, whose {name!r} holds {size >> 20:,} MiB; no image file is that large")


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
