"""The code that decides a run's outcome, as it was when it was imported: its hash is part of every run's name."""

import ast
import dis
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

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
    """What tells a function from the library's: "" if both do the same, or else its code, with all of the notebook's
    own that it uses: functions, and the values of variables. Raises InputError if that cannot be told."""
    if function is original or _code(function) == _code(original):
        return ""
    return "\n".join(_used(function, []))


def _code(function: Callable) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        if not inspect.isfunction(function):
            raise TypeError
        return meaning(inspect.cleandoc("\n" + inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:  # typed at a prompt; an object; a lambda within an expression
        raise InputError(
            f"{name} has no source that could name its runs; define it by `def`, in a cell or a file"
        ) from error


def _used(function: Callable, seen: list) -> Iterator[str]:
    """The code of a function, and what is behind each name in it that its own module has given a meaning."""
    seen.append(function)
    code = _code(function)
    yield code
    closed = inspect.getclosurevars(function).nonlocals
    names = {name: function.__globals__[name] for name in _globals(function.__code__) & function.__globals__.keys()}  # type: ignore[attr-defined]
    defaults = {"default": [function.__defaults__, function.__kwdefaults__]}  # type: ignore[attr-defined]
    for name, value in sorted({**names, **closed, **defaults}.items()):
        if inspect.isfunction(value) and value.__module__ == function.__module__:
            if value not in seen:
                yield from _used(value, seen)
        elif not (isinstance(value, list | dict | set) and _notes(name, function)):
            yield f"{name} is {_value(value)}"


def _globals(code: types.CodeType) -> set[str]:
    """The global names that a piece of code looks up, functions within it included."""
    names = {line.argval for line in dis.get_instructions(code) if line.opname == "LOAD_GLOBAL"}
    return names.union(*(_globals(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _notes(name: str, function: Callable) -> bool:
    """Whether a function writes something down in its variable `name`, such as the losses so far."""
    return bool(
        re.search(rf"\b{name}\.(append|extend|add|update)\(|\b{name}\[[^]]*\] *=[^=]", inspect.getsource(function))
    )


def _value(value: object, depth: int = 0) -> str:
    """A value in a form that is the same in every process."""
    if isinstance(value, Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if inspect.ismodule(value) or inspect.isroutine(value) or isinstance(value, type):
        return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
    if depth < 5 and isinstance(value, list | tuple):
        return f"({', '.join(_value(part, depth + 1) for part in value)})"
    if depth < 5 and isinstance(value, set | frozenset):
        return _value(sorted(_value(part, depth + 1) for part in value), depth + 1)
    if depth < 5 and (isinstance(value, dict) or hasattr(value, "__dict__")):
        parts = value if isinstance(value, dict) else vars(value)
        inside = ", ".join(f"{key}: {_value(part, depth + 1)}" for key, part in parts.items())
        return f"{type(value).__qualname__} {{{inside}}}"
    return re.sub(r" at 0x\w+", "", repr(value))
