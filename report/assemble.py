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
REFERENCE = re.compile(r"\[(Figure|Table|Listing|Equation)\]\(#([\w-]+)\)")
EQUATION = re.compile(r"^\$\$((?:(?!\$\$).)+)\$\$[ \t]*<!--\s*(eq-[\w-]+)\s*-->[ \t]*$", re.MULTILINE | re.DOTALL)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")

# What may hold digits or signs without meaning a result: code, formulas, citations, links, list numbers, escapes, and
# the names of the approaches.
CODE = r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$"
NO_RESULT = re.compile(
    rf"{CODE}|\[[^\]\n]*@[^\]\n]*\]|\]\([^)\s]*\)|^\s*\d+\.\s|\bApproach(?:es)? \d\b|\b\d+-bit\b|\\[^\w\s]",
    re.DOTALL | re.MULTILINE,
)
WORD = (
    "(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|"
    "eighty|ninety|hundred|thousand|half)"
)
RESULT = re.compile(
    r"\d[\d.,]*|[¼-¾⅐-⅞]|[^\n.]{0,20}(?:%|\bper ?cent\b)|\b(?:half|third|quarter|tenth)s? (?:of|the)\b|"
    rf"\b(?:twice|thrice|\w+fold)\b|\b{WORD}(?:[- ]{WORD})*[ -]"
    r"(?:of|in|points?|times|seconds?|minutes?|hours?|epochs?|thirds?|quarters?|tenths?)\b",
    re.IGNORECASE,
)
# Within code, formulas and citations, a share in percent is a result all the same.
SHARE = re.compile(r"\d\s*\\?%")

# Raw markup, attributes, fenced divisions, pictures, links that run something: lost in one of the formats, or worse.
MARKUP = re.compile(
    r"\\(?:begin|ref|cite|label)\b|<(?!https?:)/?[a-zA-Z!][^>\n]*>|[\]`]\{[^}\n]*\}|"
    r"^#[^\n]*\{(?!-\})[^\n]*\}\s*$|^\s*:::[^\n]*|!\[[^\]\n]*\]\([^)\n]*\)|"
    r"\]\(\s*<?(?!#|https?://|mailto:)[^)\n]*\)|^\[[^\]\n]+\]:[^\n]*",
    re.IGNORECASE | re.MULTILINE,
)
UNLINKED = re.compile(r"(?<!\[)\b(?:Figure|Table|Listing|Equation) \d+")


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
        elif cell.cell_type == "raw" and cell.source.strip():
            raise ExportError(f"{where} is a raw cell, which no format shows; make it Markdown or code")
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
        if match[2] not in labels:
            raise ExportError(f"the text refers to #{match[2]}, which nothing bears as its label")
        if not labels[match[2]].startswith(match[1]):
            raise ExportError(f"the text calls #{match[2]} a {match[1]}; it is {labels[match[2]]}")
        return f"[{labels[match[2]]}](#{match[2]})"

    markdown = REFERENCE.sub(refer, "\n\n".join(text))
    body, *appendix = re.split(r"^(?=# Appendix)", markdown, maxsplit=1, flags=re.MULTILINE)
    return "\n\n".join([body, "# References {-}\n\n::: {#refs}\n:::", *appendix]), blocks


def check(markdown: str, where: str) -> None:
    """Raises ExportError where Markdown types a result by hand, or holds what pandoc would not set as meant."""
    prose = NO_RESULT.sub(" ", EQUATION.sub(" ", markdown))
    if found := UNLINKED.search(prose):
        raise ExportError(f"{where} types {found[0]!r} by hand; write [{found[0].split()[0]}](#its-label)")
    if found := RESULT.search(prose):
        raise ExportError(
            f"{where} types the number {found[0].strip()!r} by hand; let a code cell compute it, or make it `code` or "
            "$math$"
        )
    if found := SHARE.search(re.sub(r"\]\([^)\s]*\)", "", markdown)):
        raise ExportError(f"{where} types the share {found[0]!r} by hand; let a code cell compute it")
    check_markup(markdown, where)


def check_markup(markdown: str, where: str) -> None:
    """Raises ExportError for markup that one of the formats would lose, or that could run or fetch something."""
    code_or_escape = re.compile(rf"{CODE}|\\[^\w\s]", re.DOTALL)
    rest = code_or_escape.sub(lambda match: "`" if match[0][0] == "`" else " ", EQUATION.sub(" ", markdown))
    if found := MARKUP.search(rest):
        raise ExportError(
            f"{where} holds {found[0].strip()!r}, raw markup that one of the formats would lose or must not have; "
            "write plain Markdown, formulas as $$"
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
        check_markup(data["text/markdown"], where)
        return [data["text/markdown"]]
    if "text/html" in data:
        return [Block("html", {"html": data["text/html"], "where": where})]
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
        check_markup(content["markdown"], where)
        return tied(re.sub(r"(?<=\w)'(?=\w)", "\N{RIGHT SINGLE QUOTATION MARK}", content["markdown"]))
    if kind not in NEEDS or not re.fullmatch(r"[a-z]+-[a-z0-9-]+", content["label"]):
        raise ExportError(f"{where} has a {kind!r} labelled {content.get('label')!r}, which the report cannot place")
    if missing := [name for name in NEEDS[kind] if not content.get(name) or not "".join(content[name]).strip()]:
        raise ExportError(f"{where} has a {kind} {content['label']!r} without {missing[0]}")
    return Block(kind, content | {"caption": tied(content["caption"])})


def tied(text: str) -> str:
    """`text` with its numbers and what belongs to them on one line."""
    text = re.sub(r"(\d) (?=%|points?\b|seeds?\b|nats\b)", "\\1\N{NO-BREAK SPACE}", text)
    return re.sub(r"\b(n|p) ([=<]) (?=\d)", "\\1\N{NO-BREAK SPACE}\\2\N{NO-BREAK SPACE}", text)
