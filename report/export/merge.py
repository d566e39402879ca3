"""Executed notebooks -> one notebook, the document in reading order.

Cells that prepare (tagged parameters, injected-parameters, setup) are left behind, so are exercises with what stands
under their heading, and sections tagged `optional` in which no code has an output. Further notebooks stand before the
limits, the conclusion and the appendix of the last one.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import inline
from .origin import ExportError
from .reading import begins, exercises, level, place_of, read, section, tags_of

LEFT_BEHIND = {"parameters", "injected-parameters", "setup", "papermill-error-cell-tag"}
CLOSING = re.compile(
    r"(?:\d+\.? )?(?:limits|limitations|conclusions?|references|bibliography|appendix|appendices)\b", re.IGNORECASE
)


def merge(main: Sequence[Path], further: Sequence[Path] = ()) -> NotebookNode:
    """One notebook of all the cells that belong to the text; each keeps its Place in metadata["report"]."""
    parts = [text_of(read(path)) for path in main]
    added = [cell for path in further for cell in _headed(text_of(read(path)), path)]
    last = parts[-1] if parts else []
    place = next((n for n, cell in enumerate(last) if CLOSING.match(_title(cell))), len(last))
    parts[-1:] = [last[:place], added, last[place:]]
    cells = [cell for part in parts for cell in part]
    for number, cell in enumerate(cells):
        cell.id = f"c{number}"  # notebooks may have the same ones
    return nbformat.v4.new_notebook(cells=cells)


def text_of(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells of one notebook that belong to the report. Raises ExportError where a number was not computed."""
    aside = exercises(cells)
    cells = inline.attach([cell for number, cell in enumerate(cells) if number not in aside])
    kept: list[NotebookNode] = []
    at = 0
    while at < len(cells):
        end = section(cells, at)
        if level(cells[at]) and "optional" in tags_of(cells[at]) and not any(map(_has_output, cells[at:end])):
            at = end
            continue
        if not tags_of(cells[at]) & LEFT_BEHIND:
            kept.append(cells[at])
        at += 1
    return kept


def _title(cell: NotebookNode) -> str:
    """The words of a heading of the first level."""
    return begins(cell)[1] if level(cell) == 1 else ""


def _has_output(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and any(o.output_type != "stream" or o.name == "stdout" for o in cell.outputs)


def _headed(cells: list[NotebookNode], path: Path) -> list[NotebookNode]:
    """A notebook without any heading gets its name for one, or its text would belong to the section before."""
    if not cells or any(level(cell) for cell in cells):
        return cells
    name = re.sub(r"^[\d\W_]+", "", path.stem).replace("_", " ").strip() or path.stem
    heading = nbformat.v4.new_markdown_cell(f"# {name[0].upper()}{name[1:]}")
    heading.metadata["report"] = cells[0].metadata["report"]
    return [heading, *cells]


def failure(path: Path, tagged: bool = False) -> str:
    """The sentence that says in which cell, as its author counts, an execution stopped; "" if it did not. Errors that
    the tag raises-exception announces count if `tagged`: papermill executes what follows them, and then gives up."""
    for cell in read(path):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and (tagged or "raises-exception" not in tags_of(cell)):
                reason = output.evalue.strip().split("\n")[-1 if output.ename == "CellTimeoutError" else 0]
                return (
                    reason if "inline" in tags_of(cell) else f"{place_of(cell)}: {output.ename}: {reason}".rstrip(": ")
                )
    return ""


def check(paths: Sequence[Path]) -> None:
    """Raises ExportError for a notebook that stopped in an error."""
    for path in paths:
        if sentence := failure(path):
            raise ExportError(sentence)
