"""A notebook file of any kind that people have -> cells that know where their author wrote them."""

import dataclasses
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import terminal
from .origin import ExportError, Place

INSERTED = {
    "injected-parameters",
    "inline",
    "papermill-error-cell-tag",
}  # by papermill and by inline.py, not by authors
DIRTY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\ufdd0-\ufdef]")
FENCE = r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?^ {0,3}(?P=fence)[`~]*[ \t]*$|.*\Z)"
FENCES = re.compile(FENCE, re.MULTILINE | re.DOTALL)
ASIDE = re.compile(r"\A(?:\s|<!--.*?-->|<a\b[^>]*>\s*</a>)*", re.DOTALL)
UNDERLINED = re.compile(r"^(?![#>|`~<*+-])([^\n]*\S[^\n]*)\n(=+|-{2,})[ \t]*$", re.MULTILINE)
HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*(?:\{[^}\n]*\})?[ \t]*$", re.MULTILINE)


def load(path: Path) -> NotebookNode:
    """The notebook, upgraded, with all that the format asks for. Raises ExportError if it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ExportError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no notebook ({error})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("cells", raw.get("worksheets")), list):
        raise ExportError(f"{path} is no notebook (it has no cells)")
    try:
        if "worksheets" in raw or raw.get("nbformat", 4) < 4:
            raw = dict(
                nbformat.reads(json.dumps({"metadata": {}, "nbformat": 3, "nbformat_minor": 0} | raw), as_version=4)
            )
        raw["metadata"] = dict(raw.get("metadata") or {})
        raw["cells"] = [_whole(cell, number) for number, cell in enumerate(raw["cells"])]
    except Exception as error:  # nbformat raises of many kinds for what it cannot upgrade
        raise ExportError(f"{path} is no notebook ({type(error).__name__}: {error})") from error
    return nbformat.from_dict(raw | {"nbformat": 4, "nbformat_minor": 5})


def read(path: Path) -> list[NotebookNode]:
    """The cells of a notebook; metadata["report"] holds each one's Place, and where the notebook lay."""
    notebook = load(path)
    source = notebook.metadata.get("report", {}).get("source", "")
    name = source or path.name
    folders = [str(Path(source).parent)] * bool(source) + [str(path.parent)]
    heading, count = "", 0
    cells = []
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        count += not tags & INSERTED
        place = Place(name, count, begins(cell)[1] or heading)
        cell.metadata["report"] = {"place": dataclasses.asdict(place), "folders": folders}
        if cell.cell_type == "markdown" and (found := HEADING.findall(FENCES.sub("", cell.source))):
            heading = found[-1][1].strip()
        cells.append(cell)
    return cells


def section(cells: list[NotebookNode], begin: int) -> int:
    """The end of the section that a Markdown cell starts: the next heading of its level or a higher one."""
    own = level(cells[begin])
    if not own:
        return begin + 1
    return next((n for n in range(begin + 1, len(cells)) if 0 < level(cells[n]) <= own), len(cells))


def level(cell: NotebookNode) -> int:
    """Of the heading that a cell begins with; 0 for none."""
    return begins(cell)[0]


def begins(cell: NotebookNode) -> tuple[int, str]:
    """(level, words) of the heading that a cell begins with, behind comments and anchors; (0, "") for none."""
    if cell.cell_type != "markdown":
        return 0, ""
    source = ASIDE.sub("", cell.source, count=1)
    if found := HEADING.match(source):
        return len(found[1]), found[2].strip()
    if found := UNDERLINED.match(source):
        return (1 if found[2][0] == "=" else 2), found[1].strip()
    return 0, ""


def tags_of(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def exercises(cells: list[NotebookNode]) -> set[int]:
    """The places of the cells tagged `exercise` and of what stands under a heading so tagged: the reader's, not the
    report's."""
    return {n for at, cell in enumerate(cells) if "exercise" in tags_of(cell) for n in range(at, section(cells, at))}


def tidied(notebook: NotebookNode) -> NotebookNode:
    """A notebook that came another way than through `load`, likewise without signs that no document can hold."""
    cells = [nbformat.from_dict(_whole(dict(cell), number)) for number, cell in enumerate(notebook.cells)]
    return nbformat.from_dict({**notebook, "cells": cells})


def place_of(cell: NotebookNode) -> Place:
    """Where a cell's author wrote it; cells of a notebook that was not merged count as they are."""
    return Place(**cell.metadata.get("report", {}).get("place", {}))


def _whole(cell: dict, number: int) -> dict:
    """`cell` with every field that nbformat 4.5 asks for, and text that both formats can hold."""
    kind = cell.get("cell_type", "raw")
    kind = kind if kind in ("markdown", "code", "raw") else "raw"
    identity = cell.get("id")
    fields = {
        "id": identity if isinstance(identity, str) and re.fullmatch(r"[\w-]{1,64}", identity) else f"cell-{number}",
        "cell_type": kind,
        "metadata": dict(cell.get("metadata") or {}),
        "source": terminal.clean(_text(cell.get("source", ""))),
    }
    if kind == "code":
        outputs = [_output(dict(output)) for output in cell.get("outputs") or []]
        fields |= {"execution_count": cell.get("execution_count"), "outputs": outputs}
    elif cell.get("attachments"):
        fields["attachments"] = cell["attachments"]
    return fields


def _output(output: dict) -> dict:
    if "text" in output:
        output["text"] = _text(output["text"])
    if "data" in output:
        output["data"] = {
            mime: value if mime.endswith("json") else _text(value) for mime, value in output["data"].items()
        }
        output["data"] = {
            mime: _clean(value) if mime != "text/plain" else value for mime, value in output["data"].items()
        }
    return output


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return terminal.clean(value) if DIRTY.search(value) else value
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value
