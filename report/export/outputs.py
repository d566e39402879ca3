"""The outputs of a code cell -> pieces of the document. What no format can show is left out, with a warning."""

import dataclasses
import json
import re
from collections.abc import Iterator

from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

from . import pictures, sanitize, tables, terminal
from .options import Options
from .origin import ExportError, Journal, Place
from .pandoc import inlines
from .parts import Block, Html, Pool, Text, canonical

MIME = "application/vnd.report+json"  # report_lib's; no import, so that any notebook can be exported
NEEDS = {"figure": ("caption", "alt", "svg"), "table": ("caption", "header"), "listing": ("caption", "code")}
PYTHON_WARNING = re.compile(r"^(?:.+?:\d+: )?(\w*Warning): (.*)$")
BARE = re.compile(
    r"<(?:[\w.]+\.)?\w+(?: object(?: at 0x[0-9a-f]+)?| at 0x[0-9a-f]+)>|<IPython\.[^>]*>"
    r"|alt\.\w+\(\.\.\.\)|<Vega(?:Lite)? \d+ object>.*|:[A-Z]\w*\s+\[.*",  # Altair, HoloViews
    re.DOTALL,
)
PIPES = re.compile(r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$", re.MULTILINE)
# What a plotting call returns stands beside its picture in every notebook, and in no report.
RETURNED = re.compile(
    r"<Axes|<Figure|matplotlib|BarContainer|Text\(|<seaborn|array\(\[<Axes|\[?<[\w.]+ at 0x|0x[0-9a-f]{6,}"
)
ORDER = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")

Piece = Block | Text | Html


@dataclasses.dataclass
class Cell:
    """One cell whose outputs are read, and what its options still have to give away."""

    place: Place
    options: Options
    journal: Journal
    pool: Pool
    folders: list[str]
    expected: bool = False  # that it ends in an error
    shown: int = 0  # pictures
    tabled: int = 0
    group: Block | None = None

    def warn(self, says: str) -> None:
        self.journal.warn(self.place, says)


def read(cell: NotebookNode, context: Cell) -> list[Piece]:
    """Raises ExportError for an error output, and for a part of report_lib that is not whole."""
    pieces: list[Piece] = []
    outputs = list(_streams_joined(cell.outputs))
    has_picture = any(mime in output.get("data", {}) for output in outputs for mime in ORDER)
    for output in outputs:
        if output.output_type == "error":
            if not context.expected:
                reason = terminal.plain(f"{output.ename}: {output.evalue}".rstrip(": ")).split("\n")[0]
                raise ExportError(f"{context.place} ended in {reason}")
            pieces += _printed(f"{output.ename}: {output.evalue}", context)
        elif output.output_type == "stream":
            pieces += _stream(output, context)
        elif not (has_picture and output.output_type == "execute_result" and _returned(output.data)):
            pieces += _bundle(output, context)
    for option, captions, shown in (("fig-cap", context.options.fig_cap, context.shown),
                                    ("tbl-cap", context.options.tbl_cap, context.tabled)):  # fmt: skip
        kind = "picture" if option == "fig-cap" else "table"
        if captions and not shown:
            context.warn(f"it has a {option}, but shows no {kind}")
        elif len(captions) > shown:
            context.warn(f"its {option} has {len(captions)} texts, of which {shown} are used: so many {kind}s it shows")
    return pieces


def _streams_joined(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Texts of the same stream as one, also where another stream broke in: that is how they were written."""
    open_streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            yield from open_streams.values()
            open_streams = {}
            yield output
        elif output.name in open_streams:
            open_streams[output.name].text += output.text
        else:
            open_streams[output.name] = NotebookNode(output)
    yield from open_streams.values()


def _stream(output: NotebookNode, context: Cell) -> list[Piece]:
    if output.name == "stdout":
        if context.options.output == "asis":
            return [Text(terminal.plain(output.text), context.place, context.folders)]
        return _printed(output.text, context)
    lines = [line for line in terminal.plain(output.text).split("\n") if line.strip()]
    warned = False
    rest = []
    for line in lines:
        if found := PYTHON_WARNING.match(line):
            warned = True
            if context.options.warning:
                context.warn(f"Python warned ({found[1]}: {_short(found[2])}); the report does not show it")
        elif not (warned and line.startswith("  ")):
            rest.append(line)
    if rest and context.options.warning:
        context.warn(f"what it wrote on stderr is left out: {_short(rest[0])}")
    return []


def _printed(text: str, context: Cell) -> list[Piece]:
    whole = terminal.screen(text)
    lines, left_out = terminal.cut(whole)
    longest = max((sum(len(words) for words, _ in line) for line in whole), default=0)
    if longest > terminal.WIDTH:
        context.warn(f"its output has a line of {longest:,} signs; of one line the first {terminal.WIDTH:,} are shown")
    if left_out:
        context.warn(
            f"its output has {left_out + terminal.LINES:,} lines, of which the first {terminal.LINES} are shown"
        )
    return [Block("output", {"lines": lines}, place=context.place)] if lines else []


def _returned(data: dict) -> bool:
    return set(data) <= {"text/plain"} and bool(RETURNED.search(data.get("text/plain", "")))


def _bundle(output: NotebookNode, context: Cell) -> list[Piece]:
    data = dict(output.data)
    text = data.get("text/plain", "")
    if MIME in data:
        return [part(dict(data[MIME]), context)]
    if "application/vnd.jupyter.widget-view+json" in data:
        if not terminal.BAR.search(text) and "%|" not in text:
            context.warn(f"a widget is left out, since it needs a kernel ({_short(text) or 'without a name'})")
        return []
    if "text/html" in data and (pieces := _html(data, output, context)) is not None:
        return pieces
    if "text/markdown" in data:
        return [Text(_captioned(data["text/markdown"], context), context.place, context.folders)]
    if "text/latex" in data:
        return [Text(_formula(data["text/latex"]), context.place)]
    for mime in ORDER:
        if mime in data and (shown := _picture(data[mime], mime, output, context)) is not None:
            return shown
    if "text/html" in data:
        return []
    if "application/json" in data:
        return _printed(json.dumps(data["application/json"], indent=1, ensure_ascii=False), context)
    if text.strip() and not BARE.fullmatch(text.strip()):
        return _printed(text, context)
    known = ", ".join(mime for mime in data if mime != "text/plain") or _short(text)
    if known:
        context.warn(f"an output that no format can show is left out ({known})")
    return []


def _html(data: dict, output: NotebookNode, context: Cell) -> list[Piece] | None:
    """The pieces of an HTML output; None where another form of the same output is to be shown."""
    markup = data["text/html"]
    text = data.get("text/plain", "").strip()
    picture = any(mime in data for mime in ORDER)
    readable = bool(text) and not BARE.fullmatch(text)
    soup = BeautifulSoup(markup, "html.parser")
    found = tables.tables(soup)
    dataframe = any("dataframe" in str(table.get("class")) for table in found)
    if sanitize.runs(markup) and not dataframe:
        if picture or readable:
            return None if picture else _printed(data["text/plain"], context)
        if not sanitize.shows_anything(markup) or "Trust Notebook" in markup or "Loading BokehJS" in markup:
            context.warn("an output is left out, since it needs a script or a frame, and brings no picture of itself")
            return []
    if not sanitize.shows_anything(markup):
        if not picture and not readable:
            context.warn("an output is left out, since it holds looks, sound or film only")
            return []
        return None if picture else _printed(data["text/plain"], context)
    if readable and not found and ("<style" in markup or markup.lstrip().startswith("<pre")):
        return _printed(data["text/plain"], context)
    return _cleaned(markup, context)


def _cleaned(markup: str, context: Cell) -> list[Piece]:
    def picture(kind: str, source: str, alt: str) -> str:
        shown = pictures.in_html(kind, source, alt, _nameless(context), context.folders, {}, context.warn)
        return context.pool.token(Block("image", {"picture": shown}, place=context.place)) if shown else ""

    markup = sanitize.SVG.sub(lambda match: picture("svg", match[0], ""), markup)
    soup = BeautifulSoup(markup, "html.parser")
    styles = "\n".join(style.get_text() for style in soup.find_all("style"))
    for table in tables.tables(soup):
        if tables.has_more_than_words(table):
            _with_caption(table, soup, context)
            continue
        block, lost = tables.block(table, styles)
        for words in lost:
            context.warn(f"a table: {words}")
        place = soup.new_tag("div")
        place.string = context.pool.token(_captioned_table(block, context)[0])
        table.replace_with(place)
    rest = sanitize.cleaned(str(soup), context.warn, picture, looks=False)
    return [Html(rest, context.place)]


def _captioned_table(block: Block, context: Cell) -> list[Block]:
    """The block with what the options or its own caption say of it."""
    captions, number = context.options.tbl_cap, context.tabled
    context.tabled += 1
    caption = captions[number] if number < len(captions) else block.content.get("own_caption", "")
    if caption or context.options.label.startswith("tab-") and not number:
        block.label = _label("tab", number, context)
        block.content["caption"] = caption
        if not caption:
            context.warn(f"the table {block.label!r} has no caption; give it one with `#| tbl-cap: ...`")
    block.place = context.place
    return [block]


def _with_caption(table: Tag, soup: BeautifulSoup, context: Cell) -> None:
    """Gives a table that stays HTML the caption of the options, and its label as Markdown has it."""
    captions, number = context.options.tbl_cap, context.tabled
    context.tabled += 1
    if number < len(captions):
        for old in table.find_all("caption"):
            old.extract()
        caption = soup.new_tag("caption")
        caption.string = f"{captions[number]} {{#{_label('tab', number, context)}}}"
        table.insert(0, caption)


def _captioned(markdown: str, context: Cell) -> str:
    """Markdown that is a table, with the caption of the options."""
    captions, number = context.options.tbl_cap, context.tabled
    if not PIPES.search(markdown) or number >= len(captions):
        return markdown
    context.tabled += 1
    return f"{markdown.rstrip()}\n\n: {captions[number]} {{#{_label('tab', number, context)}}}"


def _label(kind: str, number: int, context: Cell) -> str:
    label = context.options.label
    if not label.startswith(f"{kind}-"):
        label = canonical(
            f"{kind}-{context.place.notebook.rsplit('/')[-1].removesuffix('.ipynb')}-{context.place.cell}"
        )
    return label if not number else f"{label}-{number + 1}"


def _picture(content: str, mime: str, output: NotebookNode, context: Cell) -> list[Piece] | None:
    number = context.shown
    alts, captions = context.options.fig_alt, context.options.fig_cap
    alt = alts[min(number, len(alts) - 1)] if alts else ""
    if not alt:
        alt = _nameless(context)
        context.warn("a picture has no alternative text; give it one with `#| fig-alt: ...`")
    wide = (output.get("metadata", {}).get(mime) or {}).get("width", 0)
    try:
        data = content.encode() if mime == "image/svg+xml" else pictures.decoded(content)
        shown = dataclasses.replace(
            pictures.picture(data, alt, context.warn, float(wide) * 0.75 if isinstance(wide, int | float) else 0.0),
            chosen=False,
        )
    except ExportError as error:
        context.warn(f"{error} is left out")
        return []
    context.shown += 1
    if len(captions) == 1 and context.group:
        context.group.content["pictures"].append(shown)
        return []
    block = Block("pictures", {"pictures": [shown]}, place=context.place)
    caption = captions[number] if number < len(captions) else ""
    if caption or context.options.label.startswith("fig-") and not number:
        block.label, block.content["caption"] = _label("fig", number, context), caption
        if not caption:
            context.warn(f"the figure {block.label!r} has no caption; give it one with `#| fig-cap: ...`")
    context.group = context.group or block
    return [block]


def _nameless(context: Cell) -> str:
    return f"A picture made by the code of cell {context.place.cell} of {context.place.notebook or 'the notebook'}"


def _formula(latex: str) -> str:
    """What sympy and others show as LaTeX, as a formula of Markdown."""
    text = latex.strip()
    if re.match(r"\\begin\{(?:equation|align|gather|multline|eqnarray)", text):
        return text
    if re.match(r"\\begin\{tabular", text):
        return f"```\n{text}\n```"
    whole = re.fullmatch(r"\$\$(.*)\$\$|\$(.*)\$|\\\[(.*)\\\]|\\\((.*)\\\)", text, re.DOTALL)
    inner = next((part for part in whole.groups() if part is not None), "") if whole else text
    if re.search(r"\$|\\[(\[]", inner):  # words with formulas in them
        text = re.sub(r"\\\[(.*?)\\\]", r"$$\1$$", text, flags=re.DOTALL)
        return re.sub(r"\\\((.*?)\\\)", r"$\1$", text, flags=re.DOTALL)
    return "$$" + inner.strip().removeprefix(r"\displaystyle").strip() + "$$"


def part(content: dict, context: Cell) -> Piece:
    """A part of report_lib as Markdown or a block. Raises ExportError if something is missing."""
    kind = content.pop("kind", "")
    if kind == "prose":
        markdown = re.sub(r"(?<=\w)'(?=\w)", "\N{RIGHT SINGLE QUOTATION MARK}", content["markdown"])
        return Text(tied(markdown), context.place, context.folders)
    label = str(content.get("label", ""))
    if kind not in NEEDS or not re.fullmatch(r"[a-z]+-[a-z0-9-]+", label):
        raise ExportError(f"{context.place} has a {kind!r} labelled {label!r}, which the report cannot place")
    if missing := [name for name in NEEDS[kind] if not content.get(name) or not "".join(content[name]).strip()]:
        raise ExportError(f"{context.place} has a {kind} {label!r} without {missing[0]}")
    caption = {"caption": inlines(tied(content.pop("caption")))}
    group = {name: content[name] for name in ("group", "tab") if content.get(name)}
    if kind == "table":
        notes = [inlines(tied(note)) for note in content.get("notes", ())]
        content = tables.given(content["header"], content["rows"], content["align"]) | {"notes": notes}
    return Block(kind, content | caption | group, canonical(label), place=context.place)


def tied(text: str) -> str:
    """`text` with its numbers and what belongs to them on one line."""
    text = re.sub(r"(\d) (?=%|points?\b|seeds?\b|nats\b|px\b|[×±] \d)|(?<=\d [×±]) (?=\d)",
                  lambda found: f"{found[1] or ''}\N{NO-BREAK SPACE}", text)  # fmt: skip
    return re.sub(r"\b(n|p) ([=<]) (?=\d)", "\\1\N{NO-BREAK SPACE}\\2\N{NO-BREAK SPACE}", text)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else line[:119] + "\N{HORIZONTAL ELLIPSIS}"
