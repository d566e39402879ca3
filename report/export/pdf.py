"""A document -> a tagged PDF, typeset by Typst, and pictures of its first page and of one figure."""

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import fonts, formulas, tables
from .assemble import REFERENCES, Document
from .metadata import Metadata
from .origin import ExportError, Place
from .pandoc import Blocks, Node, every, para, plain, raw_inline, stringify
from .parts import Block, Cell
from .pictures import Picture
from .render import Renderer, plain_text

TEMPLATE = Path(__file__).parent / "templates" / "report.typ"
SHORT = 20  # signs of a cell that stay on one line
SIDES = {"l": "left", "c": "center", "r": "right"}
ROOM = 487.0  # points of a line and the margin beside it, which a table may fill
FULL_LINE = 74  # characters of the widest cells of all columns, beyond which a table is wider than a page
SIGN = 0.52  # of the size of a letter is its width, on average
SIZE = 9.0  # points of a table's type
SMALLEST = 4.5  # points of type that can be read
MARK = "\n//\ufdd2\n"
FLOATS = re.compile(r"\A\s*#figure\(")
FIXED = re.compile(r"\A\s*(?:=|#heading\(|#printing\(|#figure\()")
PPI = 24  # of the pages that are looked at for holes
FOOT = 842 - 46  # points from the top of a page at which its text ends
TOP = 104  # points from the top of a page within which stands what was moved there, a heading above it or none
HOLE = 36.0  # points of white that are let be
TRIALS = 24  # of moving a figure
GROUPED = "84%"  # of a line is a figure wide of which the page has several as tabs: here they stand together
INKS = {"red": "#a80000", "green": "#0a5c1a", "yellow": "#6d5000", "blue": "#0b47a1", "magenta": "#8a1a85",
        "cyan": "#005a66"}  # fmt: skip
SPLIT = 7.0  # points of type of a table that is set in parts


def quote(text: str) -> str:
    """`text` as a Typst string on one line, in which nothing has a meaning but the backslash and the quote."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class Pdf(Renderer):
    target = "typst"

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.files: dict[str, bytes] = {}
        shown = [item.content if isinstance(item, Block) else item for item in document.pool.items]
        known = [(node["c"][0]["t"], node["c"][1]) for node in every([document.tree, shown], "Math")]
        known += [("DisplayMath", block.content["tex"]) for block in document.pool.blocks() if block.kind == "equation"]
        self.formulas, unread = formulas.typeset(known)
        self._say(unread)
        self.failed |= unread
        for tex in {tex for _, tex in known if formulas.RULED.search(tex)}:
            place = document.formulas.get(tex, Place())
            document.journal.warn(
                place, "the rules of an array (\\hline, or | between columns) are left out of the PDF"
            )

    def formula(self, node: Node) -> list[Node]:
        return [raw_inline(self.target, self.formulas[node["c"][0]["t"], node["c"][1]])]

    def source(self, metadata: Metadata) -> str:
        names = ", ".join(quote(person.name) for person in metadata.authors)  # PDF metadata take text, not markup
        day = metadata.date
        return self.write(metadata, [
            "--standalone", f"--template={TEMPLATE}", "--citeproc", f"--bibliography={REFERENCES}",
            "--syntax-highlighting=none", f"--variable=author-strings:({names},)",
            f"--variable=title-string:{quote(metadata.title)}",
            f"--variable=typst-date:datetime(year: {day.year}, month: {day.month}, day: {day.day})"])  # fmt: skip

    def compiled(self, source: str, system_fonts: bool) -> tuple[bytes, bytes]:
        """(the PDF, its first page as PNG). Raises ExportError if Typst refuses the document."""
        import typst

        with tempfile.TemporaryDirectory() as folder:
            for name, data in self.files.items():
                Path(folder, name).write_bytes(data)
            main = Path(folder, "report.typ")
            main.write_text(source, encoding="utf-8")

            def compiler(text: str) -> "typst.Compiler":
                main.write_text(text, encoding="utf-8")
                return typst.Compiler(str(main), root=folder, font_paths=fonts.for_typst(system_fonts))  # type: ignore[arg-type]

            def holes(text: str) -> dict[str, float]:
                made = compiler(text)
                places = json.loads(made.query("<report:places>", field="value", one=True))
                return _holes(_pages(made.compile(format="png", ppi=PPI)), places)

            try:
                document = compiler(_filled(source, holes))
                return document.compile(format="pdf", timestamp=0), _pages(document.compile(format="png", ppi=110))[0]  # type: ignore[return-value]
            except RuntimeError as error:
                raise ExportError(f"Typst refuses the document: {' '.join(str(error).split())[:300]}") from error

    def body(self) -> Blocks:
        """The blocks with a mark after each, so that _filled() can move what leaves a hole."""
        blocks: Blocks = []
        for node in self.document.tree:
            block, placed = self.document.pool.block(node), self.placed([node])
            if node["t"] == "Para" and _announces(node):
                placed = [self.raw("#announcing["), *placed, self.raw("]")]
            apart = placed and not (block and block.content.get("printing"))  # code stays with what it prints
            blocks += [*placed, *[self.raw(MARK)] * bool(apart)]
        return blocks

    def figure(self, block: Block) -> list[Node]:
        name = self._file(block.content["svg"].encode(), "svg")
        width = f", width: {GROUPED}" if block.content.get("group") else ""
        return self._figure(block, f"image({quote(name)}{width}, alt: {quote(block.content['alt'])})")

    def pictures(self, block: Block) -> list[Node]:
        images = [self._image(picture) for picture in block.content["pictures"]]
        shown = images[0] if len(images) == 1 else f"stack(spacing: 8pt, {', '.join(images)})"
        if not block.label:
            return [self.raw(f"#align(center, kept({shown}))")]
        return self._figure(block, shown)

    def image(self, block: Block) -> list[Node]:
        return [self.raw(f"#box({self._image(block.content['picture'])})")]

    def equation(self, block: Block) -> list[Node]:
        number = block.number.split()[-1]
        tex = block.content["tex"]
        if tex in self.failed:
            return [plain([{"t": "Code", "c": [["", [], []], tex]}, raw_inline(self.target, f" #[] <{block.label}>")])]
        formula = raw_inline(self.target, self.formulas["DisplayMath", tex])
        opened = raw_inline(self.target, f'#[#set math.equation(numbering: _ => "({number})")\n')
        return [plain([opened, formula, raw_inline(self.target, f" <{block.label}>]")])]

    def table(self, block: Block) -> list[Node]:
        content = block.content
        if not content.get("foreign"):
            made, noted = self._table(content, 0.0), list(map(para, content.get("notes", [])))
            opened = self.raw(f"metadata(({made}, [" if noted else made)
            return self._tabular(block, [opened, *noted, *[self.raw("]))")] * bool(noted)])
        widths = _widths(content)
        signs = sum(widths)
        size = ROOM / signs if signs else SIZE
        parts = tables.split(content, widths, ROOM / SPLIT) if size < SMALLEST else []
        if not parts:
            self._check_wide(block, size)
        if parts:
            shown = ", ".join(self._table(part | {"foreign": True}, SPLIT) for part in parts)
            inner = f"stack(spacing: 8pt, {shown})"
        else:
            inner = self._table(content, 0.0 if size >= SIZE else max(size, SMALLEST))
        return self._tabular(block, [self.raw(inner if block.label else f"#loose({inner})")])

    def _check_wide(self, block: Block, size: float) -> None:
        if size < SMALLEST:
            self.document.journal.warn(block.place, "a table is wider than a page of the PDF; show fewer columns")

    def _table(self, content: dict, size: float) -> str:
        """The table in Typst, in a smaller type where `size` is one."""
        rows, align, foreign = content["rows"], content["align"], "foreign" in content
        # Where columns fight for the line, a unit goes below its name, not the words of a cell into the next column.
        cells = [(cell, at) for row in [*content["head"], *rows] for cell, at in _columns(row)]
        longest = [max([len(cell.text) for cell, at in cells if at == n] or [0]) for n in range(len(align))]
        full = not foreign and sum(longest) > FULL_LINE
        head = ", ".join(self._cell(c, full, foreign) for row in tables.sided(content["head"], align) for c, _ in row)
        body = ", ".join(self._cell(c, False, foreign) for row in rows for c in row)
        sides = ", ".join(SIDES[side] for side in align) or "left"
        groups = "".join(f"{n}, " for n in content.get("groups", ()))
        lines = f", stroke: rules({len(content['head'])}, {len(content['head']) + len(rows)}, ({groups}))"
        header = f"table.header({head}), " if head else ""
        columns = max(len(align), content.get("width", 0), 1)
        table = f"table(columns: {columns}, align: ({sides},){lines}, {header}{body})"
        if not size:
            return table
        inset = max(1.5, size * 0.5)
        looks = f"#show table: set text({size:.1f}pt)\n#set table(inset: (x: {inset:.1f}pt, y: {inset * 0.6:.1f}pt))"
        return f"[{looks}\n#{table}]"

    def grid(self, block: Block) -> list[Node]:
        inner = self.placed([block.content["table"]])
        size = ROOM / max(1, _signs(block.content["table"]))
        if size < SIZE:
            self._check_wide(block, size)
            opened = self.raw(f"#[#show table: set text({max(size, SMALLEST):.1f}pt); #set table(inset: 2pt)")
            inner = [opened, *inner, self.raw("]")]
        return self._tabular(block, [self.raw("["), *inner, self.raw("]")]) if block.label else inner

    def listing(self, block: Block) -> list[Node]:
        code = f'raw({quote(_breakable(block.content["code"]))}, block: true, lang: "python")'
        return self._captioned(block, [self.raw(code)], "raw")

    def code(self, block: Block) -> list[Node]:
        if not block.content["shown"]:
            return []
        python = ', lang: "python"' if block.content["language"].startswith(("py", "ipython")) else ""
        code = f"raw({quote(_breakable(block.content['code'].strip(chr(10))))}, block: true{python})"
        return [self.raw(f"#printing({code})" if block.content.get("printing") else f"#{code}")]

    def output(self, block: Block) -> list[Node]:
        lines = block.content["lines"]
        words = quote(_breakable(plain_text(lines)))
        if any(looks for line in lines for _, looks in line):
            words = "(" + "".join(f"({''.join(map(_run, line))})," for line in lines) + ")"
        return [self.raw(f"#output({words}, {str(bool(block.content.get('printed'))).lower()})")]

    def _figure(self, block: Block, picture: str) -> list[Node]:
        return self._captioned(block, [self.raw(picture)], "image")

    def _tabular(self, block: Block, inner: list[Node]) -> list[Node]:
        return self._captioned(block, inner, "table") if block.label else inner

    def _captioned(self, block: Block, inner: list[Node], kind: str) -> list[Node]:
        closed = f"], kind: {kind}, supplement: none, numbering: none) <{block.label}>"
        return [self.raw("#figure("), *inner, self.raw(", caption: ["), plain(self.caption(block)), self.raw(closed)]

    def _image(self, picture: Picture) -> str:
        name = self._file(picture.data, picture.ending)
        return f"image({quote(name)}, width: {picture.printed:.1f}pt, alt: {quote(picture.alt)})"

    def _file(self, data: bytes, ending: str) -> str:
        name = f"picture{len(self.files)}.{ending}"
        self.files[name] = data
        return name

    @classmethod
    def _cell(cls, cell: Cell, broken: bool, foreign: bool) -> str:
        text = "" if cell.again else cell.text
        words = quote(text)
        if cell.padded:
            words = "+".join(
                f"hide({quote(_tied(piece))})" if fills else quote(_tied(piece)) for piece, fills in cell.padded
            )
        elif cell.mono and text:
            words = '+" "+'.join(f"box(raw({quote(word)}))" for word in text.split())
        elif broken:
            words = words.replace(", ", ',"+linebreak()+"')
        elif not cell.head or foreign:
            # A few words stay on one line: no break at their spaces, nor (word joiner) at their hyphens.
            words = quote(_tied(text) if len(text) <= SHORT else text)
        shown = f"[#strong({words})]" if cell.bold or foreign and cell.head else f"[#({words})]"
        ink = cell.ink or ("#000000" if cell.fill else "")
        if ink:
            shown = f"text(fill: rgb({quote(ink)}), {shown})"
        spans = [f"{name}: {n}" for name, n in (("colspan", cell.cols), ("rowspan", cell.rows)) if n > 1]
        spans += [f"fill: rgb({quote(cell.fill)})"] if cell.fill else []
        spans += ["align: center"] if cell.cols > 1 else []
        return f"table.cell({', '.join(spans)}, {shown})" if spans else shown


def _run(run: tuple[str, tuple[str, ...]]) -> str:
    """Words in the colours of a terminal, as Typst."""
    words, looks = run
    ink = next((f"fill: rgb({quote(INKS[look])}), " for look in looks if look in INKS), "")
    return f"text({ink}{'weight: 700, ' * ('bold' in looks)}raw({quote(_breakable(words))})),"


def _announces(paragraph: Node) -> bool:
    """Whether a paragraph ends in a colon, and so stays with what follows."""
    last = paragraph["c"][-1] if paragraph["c"] else {}
    return last.get("t") == "Str" and last["c"].endswith(":")


def _pages(made: object) -> list[bytes]:
    return made if isinstance(made, list) else [made]  # type: ignore[list-item]


def _filled(source: str, holes: Callable[[str], dict[str, float]]) -> str:
    """The source with figures moved by a block where that makes the holes smaller that they leave on pages."""
    open_holes, tried = holes(source), 0
    settled: set[str] = set()  # where no move helps; what is moved below does not change that
    while tried < TRIALS and (label := next((label for label in open_holes if label not in settled), "")):
        settled.add(label)
        for moved in _moves(source, label):
            left, tried = holes(moved), tried + 1
            if sum(left.values()) < sum(open_holes.values()) - 1:
                source, open_holes = moved, left
                settled.discard(label)
                break
    return source


def _holes(pages: list[bytes], places: list[tuple[str, int, float]]) -> dict[str, float]:
    """Label of a figure or table at the head of a page -> points of white that it left on the page before."""
    heads = {page: label for label, page, height in reversed(places) if page > 1 and height < TOP}
    holes = {label: _hole(pages[page - 2]) for page, label in sorted(heads.items())}
    return {label: hole for label, hole in holes.items() if hole > HOLE}


def _moves(source: str, label: str) -> Iterator[str]:
    """The source with the text after a figure set before it, and with the figure before the text that it follows; no
    figure before another, and none into another section, but for those of the third level."""
    blocks = source.split(MARK)
    at = next((n for n, block in enumerate(blocks) if f"<{label}>" in block and FLOATS.search(block)), 0)
    after = next((n for n in range(at, len(blocks)) if not FLOATS.search(blocks[n])), at)
    end = after + 1 + blocks[after].lstrip().startswith("===")
    if at < after and _moveable(blocks[end - 1 : end]):
        yield MARK.join([*blocks[:at], *blocks[after:end], *blocks[at:after], *blocks[end:]])
    if at and _moveable(blocks[at - 1 : at]):
        yield MARK.join([*blocks[: at - 1], blocks[at], blocks[at - 1], *blocks[at + 1 :]])


def _moveable(block: list[str]) -> bool:
    """Whether there is a block, and it is text that is no heading and has no output."""
    return any(text.strip() and not FIXED.search(text) for text in block)


def _hole(page: bytes) -> float:
    """Points of white between the last line of a page and its foot."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(page)) as image:
        dark = np.flatnonzero(np.asarray(image.convert("L")).min(axis=1) < 128) * 72 / PPI
    foot = FOOT - 2
    return float(foot - dark[dark < foot].max(initial=0))


def _breakable(text: str) -> str:
    """A run of signs longer than a line may break anywhere, or it would leave the page."""
    return re.sub(r"\S{81,}", lambda match: "\u200b".join(match[0]), text)


def _signs(table: Node) -> float:
    """About how wide a table of Markdown is, in letters: of each column the longest cell, whose words may break."""
    longest: dict[int, int] = {}
    for row in _rows(table["c"]):
        for at, cell in enumerate(row[1]):
            text = stringify(cell[4])
            need = len(text) if len(text) <= SHORT else max(*map(len, text.split()), min(len(text), 28))
            longest[at] = max(longest.get(at, 0), need)
    return SIGN * (sum(longest.values()) + 2 * len(longest))


def _rows(content: list) -> list:
    """The rows of pandoc's table, [attributes, cells] each."""
    head, bodies = content[3][1], content[4]
    return [*head, *(row for body in bodies for row in [*body[2], *body[3]])]


def _tied(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "-\u2060")


def _widths(content: dict) -> list[float]:
    """About how wide each column is, in the size of a letter."""
    widths = [0.0] * max(len(content["align"]), 1)
    for row in [*content["head"], *content["rows"]]:
        for cell, at in _columns(row):
            if cell.cols == 1 and at < len(widths):
                # Few words stay on one line; of many, the longest must fit, and they share what is left.
                words = cell.text.split() or [""]
                need = len(cell.text) if len(cell.text) <= SHORT else max(max(map(len, words)), min(len(cell.text), 28))
                widths[at] = max(widths[at], need * SIGN + 1)
    return widths


def _columns(row: list[Cell]) -> list[tuple[Cell, int]]:
    at, placed = 0, []
    for cell in row:
        placed.append((cell, at))
        at += cell.cols
    return placed


def drawn(svg: str) -> bytes:
    """A drawing alone, as PNG, for a README."""
    import typst

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "figure.svg").write_text(svg, encoding="utf-8")
        source = Path(folder, "figure.typ")
        source.write_text('#set page(width: auto, height: auto, margin: 8pt, fill: white)\n#image("figure.svg")\n')
        return typst.compile(str(source), root=folder, format="png", ppi=130, font_paths=fonts.for_typst(False))  # type: ignore
