"""The code that decides a run's outcome, as it was when it was imported: its hash is part of every run's name."""

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from report_lib.files import InputError

LIBRARY = Path(__file__).parents[1]
DECIDES = ("config/seeds.py", "data/tensors.py", "models/weights.py", "models/networks.py", "training/precision.py",
           "training/features.py", "training/task.py", "training/loop.py")  # fmt: skip
IMPORTED = {name: (LIBRARY / name).read_text("utf-8") for name in DECIDES}  # this module is the first of the room
SAYS = ("print", "warn", "set_postfix_str")  # calls that tell somebody something, and decide nothing


@functools.cache
def code_hash() -> str:
    """sha256 of what the code does; its comments, docstrings, annotations and messages do not count."""
    return hashlib.sha256("\n".join(map(meaning, IMPORTED.values())).encode()).hexdigest()


def check_unchanged() -> None:
    """Raises InputError if a file says something else than what was imported: a run would bear another code's name."""
    for name, text in IMPORTED.items():
        now = (LIBRARY / name).read_text("utf-8")
        if now != text and meaning(now) != meaning(text):
            raise InputError(f"report_lib/{name} has changed since it was imported; restart the kernel")


@functools.lru_cache(64)
def meaning(source: str) -> str:
    """Python code in a form that is the same for every version of Python (`ast.unparse` and `ast.dump` are not)."""
    return " ".join(_words(ast.parse(source)))


def _words(node: object) -> Iterator[str]:
    """A syntax tree, word by word, without what decides nothing."""
    if isinstance(node, ast.Raise):  # its condition stays; a run that ended in an error has no record
        yield "Raise"
    elif isinstance(node, ast.Import | ast.ImportFrom) or _tells(node):
        return
    elif isinstance(node, ast.JoinedStr):
        text = ""
        for part in node.values:  # versions differ in how they cut neighbouring texts, and in empty ones
            if isinstance(part, ast.Constant):
                text += str(part.value)
            else:
                yield from [text] * bool(text)
                yield from _words(part)
                text = ""
        yield from [text] * bool(text)
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_comment", "type_params", "kind", "ctx", "type_ignores"):
                continue
            if name == "body" and isinstance(value, list) and isinstance(node, DOCUMENTED) and ast.get_docstring(node):
                value = value[1:]
            yield from _words(value)
    elif isinstance(node, list):
        yield "("
        for part in node:
            yield from _words(part)
        yield ")"
    elif node is not None:
        yield repr(node)


DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _tells(node: object) -> bool:
    """Whether a statement only says something: a call of print or the like, or a text that stands alone."""
    if not isinstance(node, ast.Expr):
        return False
    called = node.value.func if isinstance(node.value, ast.Call) else None
    name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
    return name in SAYS or isinstance(node.value, ast.Constant)


def differs(function: Callable, original: Callable) -> str:
    """What tells a function from the library's: "" if both do the same, or else its code, with that of the notebook's
    own functions that it calls."""
    if function is original:
        return ""
    ours, theirs = (meaning(inspect.cleandoc("\n" + _source(each))) for each in (function, original))
    if ours == theirs:
        return ""
    called = [function.__globals__.get(name) for name in function.__code__.co_names]  # type: ignore[attr-defined]
    own = [each for each in called if inspect.isfunction(each) and each.__module__ == function.__module__]
    return "\n".join([ours, *(differs(each, original) for each in own if each is not function)])


def _source(function: Callable) -> str:
    try:
        return inspect.getsource(function)
    except OSError as error:
        name = getattr(function, "__name__", "step")
        raise InputError(f"{name} has no source that could name its runs; define it in a cell or a file") from error
