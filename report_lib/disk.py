"""Files that appear whole or not at all, and what killed processes leave behind. Imports no torch."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from report_lib.recipe import InputError


@contextlib.contextmanager
def replacing(path: Path, prefix: str) -> Iterator[BinaryIO]:
    """A file open for writing and reading which, once written and synced, takes the place of `path` in one step.

    Until then its name starts with `prefix`, in the same folder. If anything fails, `path` stays as it was.
    """
    handle, temporary = tempfile.mkstemp(prefix=prefix, dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by `text` (UTF-8) in one step, synced to disk. Raises OSError where that fails."""
    with replacing(path, f".{path.name}-") as file:
        file.write(text.encode())


def sync(path: Path) -> None:
    """Returns when the disk has what was written to a file, or which names a folder holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync folders
            raise
    finally:
        os.close(handle)


def put_aside(path: Path) -> Path:
    """Renames what lies at `path`, which is not what its name says, so that nothing is lost; returns its new name."""
    return path.rename(path.with_name(f"{path.name.lstrip('.')}.damaged-{time.time_ns()}"))


def sweep(folder: Path, pattern: str, seconds: float = 86_400) -> None:
    """Removes what matches `pattern` in `folder` and was last touched so long ago: leftovers of killed processes."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if time.time() - path.stat().st_mtime >= seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of the cache, mapped, whose blocks the disk has given for good: a page written to a full disk
    would otherwise kill the process. Raises InputError if there is no room."""
    values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate") and values.nbytes:
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                raise InputError(
                    f"cache is {str(path.parent.parent)!r}, whose disk lacks room for {values.nbytes / 2**20:,.0f} MiB "
                    f"({error.strerror}); make room, or name another folder in REPORT_CACHE"
                ) from error
    return values
