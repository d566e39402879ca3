"""An executed notebook -> the Markdown of the document and its blocks, with every check on the way.

Prose is Markdown; outputs, and with them all that strangers typed, stay data until an exporter escapes them for its
format. Cell tags: `abstract` moves a cell's output to the front, `listing` shows a cell's code. Other code is folded
away in HTML and left out of the PDF. Text on stderr (progress) is left out of both; an error output stops the export.
"""

import dataclasses
import json
import re

from nbformat import NotebookNode

MIME = "application/vnd.report+json"  # report_lib.document.MIME; no import, so that any notebook can be exported
NEEDS = {"figure": ("caption", "alt", "svg"), "table": ("caption", "header"), "listing": ("caption", "code")}
NAMES = {"fig": "Figure", "tab": "Table", "lst": "Listing", "eq": "Equation"}
REFERENCE = re.compile(r"\[(?:Figure|Table|Listing|Equation)\]\(#([\w-]+)\)")
EQUATION = re.compile(r"^\$\$((?:(?!\$\$).)+)\$\$[ \t]*<!--\s*(eq-[\w-]+)\s*-->[ \t]*$", re.MULTILINE | re.DOTALL)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")

# What may hold digits or signs without meaning them: code, formulas, citations, links, list numbers, headings, escapes.
NO_RESULT = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|\[[^\]\n]*@[^\]\n]*\]|\]\([^)\s]*\)|^\s*\d+\.\s|^#[^\n]*$|\\[^\w\s]",
    re.DOTALL | re.MULTILINE,
)
RESULT = re.compile(
    r"\d[\d,]*\.\d+|\d{2}[\d,]*|\d+(?=\s*(?:percent|points?|seconds?|times|epochs?|images?)\b)|\d+(?=\s*%)"
)


class ExportError(Exception):
    """The notebook cannot become a document; one sentence says where and why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One output or piece of code, still data: kind is figure, table, listing, equation, code, output or html."""

    kind: str
    content: dict
    number: str = ""  # "Figure 3" where it can be referred to


def assemble(nb: NotebookNode) -> tuple[str, list[Block]]:
    """(Markdown with a \\0n\\0 paragraph for block n, the blocks). Raises ExportError."""
    abstract: list[str | Block] = []
    pieces: list[str | Block] = []
    for index, cell in enumerate(nb.cells):
        where = f"cell {index + 1} ({cell.get('id', 'no id')})"
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            check(cell.source, where)
            pieces.extend(equations(cell.source))
        elif cell.cell_type == "code":
            if "abstract" not in tags and cell.source.strip():
                pieces.append(Block("code", {"code": cell.source, "shown": "listing" in tags}))
            into = abstract if "abstract" in tags else pieces
            for output in cell.outputs:
                into.extend(read_output(output, where))
    if abstract:
        abstract.insert(0, "# At a glance {-}")
    text, blocks, labels = number(abstract + pieces)

    def refer(match: re.Match) -> str:
        if match[1] not in labels:
            raise ExportError(f"the text refers to #{match[1]}, which nothing bears as its label")
        return f"[{labels[match[1]]}](#{match[1]})"

    markdown = REFERENCE.sub(refer, "\n\n".join(text))
    body, *appendix = re.split(r"^(?=# Appendix)", markdown, maxsplit=1, flags=re.MULTILINE)
    return "\n\n".join([body, "# References {-}\n\n::: {#refs}\n:::", *appendix]), blocks


def check(markdown: str, where: str) -> None:
    """Raises ExportError where Markdown types a result by hand, or holds what pandoc would not set as meant."""
    prose = NO_RESULT.sub(" ", markdown)
    if found := RESULT.search(prose):
        raise ExportError(
            f"{where} types the number {found[0]!r} by hand; let a code cell compute it, or make it `code` or $math$"
        )
    if found := re.search(r"\\(?:begin|ref|cite|label)\b|<(?!https?:)/?[a-zA-Z][^>\n]*>", prose):
        raise ExportError(
            f"{where} holds {found[0]!r}, raw markup that one of the formats would lose; write Markdown, formulas as $$"
        )


def equations(markdown: str) -> list[str | Block]:
    """Markdown cut at its labelled formulas: $$ ... $$ <!-- eq-name -->, a comment so that notebooks look tidy."""
    pieces: list[str | Block] = []
    end = 0
    for match in EQUATION.finditer(markdown):
        pieces += [markdown[end : match.start()], Block("equation", {"tex": match[1].strip(), "label": match[2]})]
        end = match.end()
    return [*pieces, markdown[end:]]


def number(pieces: list[str | Block]) -> tuple[list[str], list[Block], dict[str, str]]:
    """(paragraphs, the blocks with their numbers, label -> number). Raises ExportError if a label stands twice."""
    text: list[str] = []
    blocks: list[Block] = []
    labels: dict[str, str] = {}
    counts = dict.fromkeys(NAMES, 0)
    for piece in pieces:
        if isinstance(piece, str):
            text.append(piece.replace("\0", ""))
            continue
        label = piece.content.get("label", "")
        kind = label.split("-")[0]
        if label in labels:
            raise ExportError(f"two outputs have the label {label!r}")
        if kind in counts:
            counts[kind] += 1
            labels[label] = f"{NAMES[kind]} {counts[kind]}"
            piece = dataclasses.replace(piece, number=labels[label])
        text.append(f"\0{len(blocks)}\0")
        blocks.append(piece)
    return text, blocks, labels


def read_output(output: NotebookNode, where: str) -> list[str | Block]:
    """One output as Markdown text or a block. Raises ExportError for an error output and for one nothing can show."""
    if output.output_type == "error":
        raise ExportError(f"{where} ended in {output.ename}: {output.evalue}")
    if output.output_type == "stream":
        return [Block("output", {"text": output.text})] if output.name == "stdout" and output.text.strip() else []
    data = output.data
    if MIME in data:
        return [part(dict(data[MIME]), where)]
    if "application/vnd.jupyter.widget-view+json" in data:
        return []  # a control without its kernel; what it shows belongs into the cells around it
    if any(mime in data for mime in PICTURES):
        raise ExportError(
            f"{where} shows a picture without caption and alternative text; hand it over as report_lib.style.drawn does"
        )
    if "text/markdown" in data:
        return [data["text/markdown"]]
    if "text/html" in data:
        return [Block("html", {"html": data["text/html"]})]
    if "text/latex" in data:
        return ["$$" + data["text/latex"].strip().strip("$").removeprefix(r"\displaystyle").strip() + "$$"]
    if "text/plain" in data:
        return [Block("output", {"text": data["text/plain"]})]
    if "application/json" in data:
        return [Block("output", {"text": json.dumps(data["application/json"], indent=1, ensure_ascii=False)})]
    raise ExportError(f"{where} has an output that no format can show ({', '.join(data)})")


def part(content: dict, where: str) -> str | Block:
    """A part of report_lib.document as Markdown or a block. Raises ExportError if something is missing."""
    kind = content.pop("kind")
    if kind == "prose":
        return content["markdown"]
    if kind not in NEEDS or not re.fullmatch(r"[a-z]+-[a-z0-9-]+", content["label"]):
        raise ExportError(f"{where} has a {kind!r} labelled {content.get('label')!r}, which the report cannot place")
    if missing := [name for name in NEEDS[kind] if not (content.get(name) or "")]:
        raise ExportError(f"{where} has a {kind} {content['label']!r} without {missing[0]}")
    return Block(kind, content)
