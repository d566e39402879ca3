"""Computed numbers in a sentence, by Quarto's convention: `{python} expression` in a Markdown cell.

The prepared notebook, which papermill executes (execute.py), has one hidden code cell after each such Markdown cell. It
displays the values, so that the executed notebook carries them, and merge.py hands them back to the text. In JupyterLab
the expression shows as code. Exercises are not executed. The prepared notebook also names a kernel where its author's
does not, and remembers where that lies.
"""

import ast
import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .origin import ExportError, Place
from .reading import FENCES, exercises, load, place_of, tags_of
from .words import SPANS

MIME = "application/vnd.report.inline+json"
EXPRESSION = re.compile(
    r"(?<!`)(?P<ticks>`{1,2})\{python\}[ \t\n]+(?P<code>(?:(?!(?P=ticks)).)+?)(?P=ticks)(?!`)", re.DOTALL
)
NOT_RUN = re.compile(r"\A(?:\s*#[^\n]*\n)*?\s*#\s?\| ?eval: *false\b")
CELL = """# The numbers in the text above. This cell was inserted for the report.
def _numbers_of_the_text(place, *expressions):
    from IPython.display import display
    values = []
    for expression in expressions:
        try:
            value = eval(expression, globals())
            written = type(value).__module__ == "IPython.core.display"  # Markdown("..."), Latex("...")
            text = str(value.data if written else value)
            values.append({{"expression": expression, "text": text, "markdown": written}})
        except Exception as error:
            hint = "; what makes it goes above the text" if isinstance(error, NameError) else ""
            raise type("InlineError", (Exception,), {{}})(
                f"{{place}}: `{{{{python}}}} {{expression}}` cannot be computed "
                f"({{type(error).__name__}}: {{error}}){{hint}}") from None
    lines = [f"{{value['expression']}} = {{value['text']}}" for value in values]
    display({{"{mime}": values, "text/plain": "\\n".join(lines)}}, raw=True)


_numbers_of_the_text({arguments})
del _numbers_of_the_text"""


def expressions(markdown: str) -> list[str]:
    """The expressions of a Markdown text, in its order."""
    prose = re.sub(r"<!--.*?-->", "", FENCES.sub("", markdown), flags=re.DOTALL)
    prose = SPANS.sub(lambda span: span[0] if EXPRESSION.fullmatch(span[0]) else "", prose)
    return [" ".join(match["code"].split()) for match in EXPRESSION.finditer(prose)]


def prepare(path: Path) -> NotebookNode:
    """The notebook as it is executed. Raises ExportError for an expression that is none and for another language."""
    notebook = load(path)
    language = str(notebook.metadata.get("kernelspec", {}).get("language") or "python").lower()
    if language not in ("python", "ipython", "python3"):
        raise ExportError(f"{path} is written for a kernel of {language}; a report executes Python")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.setdefault("language_info", {"name": "python"}).setdefault("name", "python")
    shown = os.path.relpath(path)
    notebook.metadata["report"] = {"source": path.name if shown.startswith("..") else shown}
    aside = exercises(notebook.cells)
    cells = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if number - 1 in aside:
                cell.metadata["tags"] = sorted(tags_of(cell) | {"exercise", "skip-execution"})
            elif NOT_RUN.search(cell.source):
                cell.metadata["tags"] = sorted(tags_of(cell) | {"skip-execution"})
        cells.append(cell)
        found = expressions(cell.source) if cell.cell_type == "markdown" and number - 1 not in aside else []
        if not found:
            continue
        place = Place(notebook.metadata["report"]["source"], number)
        for expression in found:
            try:
                ast.parse(expression, mode="eval")
            except SyntaxError as error:
                raise ExportError(f"{place}: `{{python}} {expression}` is no expression ({error.msg})") from None
        code = CELL.format(mime=MIME, arguments=", ".join(map(repr, [str(place), *found])))
        hidden = {"source_hidden": True, "outputs_hidden": True}
        metadata = {"tags": ["inline"], "jupyter": hidden}
        cells.append(nbformat.v4.new_code_cell(code, id=f"inline-{number}", metadata=metadata))
    notebook.cells = cells
    return notebook


def attach(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells without the inserted ones, whose values go to the Markdown cells before. Raises ExportError where a
    value is missing."""
    kept: list[NotebookNode] = []
    for cell in cells:
        if "inline" in tags_of(cell):
            values = [v for output in cell.outputs for v in output.get("data", {}).get(MIME, [])]
            if kept:
                kept[-1].metadata["report"]["values"] = values
        else:
            kept.append(cell)
    for cell in kept:
        if cell.cell_type != "markdown" or tags_of(cell) & {"setup", "parameters"}:
            continue
        known = {value["expression"] for value in cell.metadata["report"].get("values", [])}
        if missing := [expression for expression in expressions(cell.source) if expression not in known]:
            raise ExportError(f"{place_of(cell)}: `{{python}} {missing[0]}` has no value in the executed notebook; "
                              "it was not prepared for the report, so execute it by make report")  # fmt: skip
    return kept
