"""What every room stands on: errors of one sentence, paths, files that appear whole or not at all, locks, progress."""

import contextlib
import errno
import hashlib
import json
import os
import reprlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import filelock
import numpy as np
import yaml
from tqdm import tqdm

PROJECT = Path(__file__).resolve().parents[1]
CACHE = ("REPORT_CACHE", ".cache")  # the environment variable that names a folder, and the folder without it
STORE = ("REPORT_RUNS", ".runs")

Item = TypeVar("Item")


# --- errors ----------------------------------------------------------------------------------------------------


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do, in one sentence."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: in a notebook, too, the sentence is all there is to say."""
        return [f"InputError: {self}"]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 300
_SHORT.maxlevel = 3


def shown(value: object) -> str:
    """`value` as a message shows it: a short one whole, of a long or deeply nested one a part."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 320 else f"{text[:320]}..."


# --- paths -----------------------------------------------------------------------------------------------------


def locate(path: str) -> Path:
    """Absolute path; a relative one starts at the project, so that it means the same in every notebook and command.

    Raises InputError for what can be no path.
    """
    try:
        located = os.path.abspath(PROJECT / Path(path).expanduser())
        os.fsencode(located)
    except (RuntimeError, ValueError) as error:  # of an unknown ~user; with half a character
        raise InputError(f"{shown(path)} can be no path ({error}); name another") from error
    if "\0" in located:
        raise InputError(f"{shown(path)} can be no path (it holds a null character); name another")
    return Path(located)


def folder(given: str, variable: str, default: str) -> Path:
    """The folder the user named, or that the environment variable names, or `default` inside the project.

    Raises InputError for what can be no path.
    """
    return locate(given or os.environ.get(variable) or default)


def check_writable(folder: Path, name: str) -> None:
    """Raises InputError if nothing can be written into `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{name} is {str(folder)!r}, where nothing can be written ({error.strerror})") from error


def check_plain(name: str, path: str) -> None:
    """Raises InputError for what is there but neither a file nor a folder: to read a pipe or a device may never end."""
    found = locate(path)
    if found.exists() and not (found.is_file() or found.is_dir()):
        raise InputError(f"{name} is {path!r}, a pipe or a device; copy what it gives into a file and name that")


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


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise ValueError(f"{twice} stands there twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> object:
    """What a YAML (or JSON) file holds; a relative path starts at the project. InputError if it cannot be read."""
    path = locate(str(path))
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except Exception as error:  # of a value that is not what its form promises, the parser raises whatever comes to it
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{path} cannot be read as YAML ({reason})") from error


# --- names made of contents ------------------------------------------------------------------------------------


def digest(value: object) -> str:
    """sha256 of a JSON-serialisable value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- whole or not at all ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path, prefix: str = "") -> Iterator[BinaryIO]:
    """A file open for writing and reading which, once written and synced, takes the place of `path` in one step.

    Until then its name starts with `prefix`, in the same folder. If anything fails, `path` stays as it was.
    """
    handle, temporary = tempfile.mkstemp(prefix=prefix or f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # as where a disk is full
            error.filename = str(path)
        raise


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder that takes the place `final` once all is written in it, unless another process was first and made the
    same. If anything fails, nothing of it stays."""
    working = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        working.chmod(0o755)  # mkdtemp's 0700 would hide it from others
        yield working
        for file in working.iterdir():  # whatever the umask: a store may be shared, and none of it is secret
            file.chmod(0o644)
        try:
            working.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by `text` (UTF-8) in one step, synced to disk. Raises OSError where that fails."""
    with replacing(path) as file:
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


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Within it, no other process holds the lock file `path`; waits while one does, and says for `what`.

    The system drops the lock of a process that dies. Where the file system has no locks, nothing is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, mode=0o666, fallback_to_soft=False)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock.acquire(timeout=0))
        except filelock.Timeout:
            print(f"another process trains {what}; waiting for it", file=sys.stderr)
            held.enter_context(lock.acquire())
        except NotImplementedError:
            pass
        except PermissionError as error:
            raise InputError(f"the lock {path} is another user's; wait for that run, or use another store") from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
        with contextlib.suppress(OSError):  # whatever the umask: one that is left behind must not stop others
            path.chmod(0o666)
        yield


# --- progress --------------------------------------------------------------------------------------------------


class Lines(tqdm):
    """The bar in a log: says what each epoch came to, and is silent about batches."""

    def display(self, *_: object, **__: object) -> None:
        pass

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        if os.environ.get("REPORT_PROGRESS") != "none":
            print(f"{self.desc}: {text}", file=sys.stderr, flush=True)


def bar(
    desc: str, total: int | None, unit: str, initial: int = 0, items: Iterable | None = None
) -> contextlib.AbstractContextManager:
    """With `update(steps)` for steps done and `set_postfix_str(text)` for what an epoch came to.

    REPORT_PROGRESS says how it looks: "bar" (the default), "lines" (one an epoch) or "none".
    """
    kind = tqdm if os.environ.get("REPORT_PROGRESS", "bar") == "bar" else Lines
    return kind(items, desc, total, unit=unit, initial=initial, leave=False, mininterval=0.5)


def each(items: Iterable[Item], desc: str, unit: str) -> Iterator[Item]:
    """`items`, with a bar for how many of them have been taken."""
    return iter(bar(desc, None, unit, items=items))  # type: ignore[call-overload]
