"""A document -> a tagged PDF, typeset by Typst, and pictures of its first page and of one figure."""

import json
import re
import tempfile
from pathlib import Path

from . import fonts, formulas, holes, tables
from .assemble import REFERENCES, Document
from .drawing import several, size
from .metadata import Metadata
from .origin import ExportError, Place
from .pandoc import Blocks, Node, every, para, plain, raw_inline, stringify
from .parts import Block, Cell
from .pictures import DRAWN, LINE, Picture
from .render import Renderer, plain_text

TEMPLATE = Path(__file__).parent / "templates" / "report.typ"
SHORT = 20  # signs of a cell that stay on one line
SIDES = {"l": "left", "c": "center", "r": "right"}
ROOM = 487.0  # points of a line and the margin beside it, which a table may fill
FULL_LINE = 74  # characters of the widest cells of all columns, beyond which a table is wider than a page
SIGN = 0.52  # of the size of a letter is its width, on average
SIZE = 9.0  # points of a table's type
SMALLEST = 4.5  # points of type that can be read
SMALLER = 0.78  # of its usual size in print has a drawing at least, where others stand beside it
ACROSS, BESIDE = 3, 11.0  # figures that the page has as tabs in one row; points between
HALF, TALLEST = 330.0, 620.0  # points that such a row is high, best and at most
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
            # One compiler for all, which lays out anew only what differs from the last time.
            document = typst.Compiler(str(main), root=folder, font_paths=fonts.for_typst(system_fonts))  # type: ignore[arg-type]

            def left(text: str) -> dict[str, float]:
                main.write_text(text, encoding="utf-8")
                places = json.loads(document.query("<report:places>", field="value", one=True))
                return holes.left_by(_pages(document.compile(format="png", ppi=holes.PPI)), places)

            try:
                main.write_text(holes.filled(source, left), encoding="utf-8")
                made = document.compile(format="pdf", timestamp=0)
                first = _pages(document.compile(format="svg"))[0].decode()  # as PNG, all pages would be painted
                return made, _painted([first], 0, 110)  # type: ignore[return-value]
            except RuntimeError as error:
                raise ExportError(f"Typst refuses the document: {' '.join(str(error).split())[:300]}") from error

    def body(self) -> Blocks:
        """The blocks with a mark after each, so that holes.filled() can move what leaves a hole."""
        blocks: Blocks = []
        for group, run in self.grouped():
            if group and (beside := self._beside([block for _, block in run if block])):
                blocks += [*beside, self.raw(holes.MARK)]
                continue
            for node, block in run:
                placed = self.placed([node])
                if node["t"] == "Para" and _announces(node):
                    placed = [self.raw("#announcing["), *placed, self.raw("]")]
                apart = placed and not (block and block.content.get("printing"))  # code stays with what it prints
                blocks += [*placed, *[self.raw(holes.MARK)] * bool(apart)]
        return blocks

    def figure(self, block: Block) -> list[Node]:
        return self._figure(block, self._drawings(block, LINE)[0])

    def _beside(self, run: list[Block]) -> list[Node]:
        """Figures that the page has as tabs, in rows of up to three; those whose drawings would stand there below each
        other over half a page, in a row each. Nothing where they are none, or too wide."""
        figures = [block for block in run if block.kind == "figure"]
        if len(figures) < 2 or any(
            block.kind != "code" or block.content["shown"] for block in run if block not in figures
        ):
            return []
        most = min(len(figures), ACROSS)
        ways = [(most, HALF), (most, TALLEST)]
        if all(len(several(block.content["svg"])) > 1 for block in figures):
            ways.insert(1, (1, HALF))
        for across, tallest in ways:
            made = [self._drawings(block, (ROOM - (across - 1) * BESIDE) / across) for block in figures]
            if all(scale >= SMALLER and height <= tallest for _, scale, height in made):
                break
        else:
            return []
        opened = [self.raw(f"#tabbed({across}, [")] + [self.raw("], [")] * (len(figures) - 1)
        columns = [self._figure(block, shown) for block, (shown, *_) in zip(figures, made, strict=True)]
        return [*(node for pair in zip(opened, columns, strict=True) for node in (pair[0], *pair[1])), self.raw("])")]

    def _drawings(self, block: Block, room: float) -> tuple[str, float, float]:
        """(a figure's drawings, beside each other where they fit into `room` points; how much smaller than others they
        are; how tall all of it is)."""
        drawings = several(block.content["svg"])
        sizes = [[DRAWN * side for side in size(drawing)] for drawing in drawings]
        wide, gaps = sum(width for width, _ in sizes), (len(sizes) - 1) * BESIDE
        across = len(sizes) if (room - gaps) / wide >= SMALLER else 1
        scale = min(1.0, (room - gaps) / wide if across > 1 else room / max(width for width, _ in sizes))
        images = [
            f"image({quote(self._file(drawing.encode(), 'svg'))}, width: {scale * width:.1f}pt, alt: {quote(alt)})"
            for drawing, (width, _), alt in zip(drawings, sizes, self.alternatives(block, len(drawings)), strict=True)
        ]
        heights = [scale * height for _, height in sizes]
        if len(images) == 1:
            return images[0], scale, heights[0]
        columns = f"columns: {across}, column-gutter: {BESIDE}pt, row-gutter: 5pt"
        return f"grid({columns}, {', '.join(images)})", scale, max(heights) if across > 1 else sum(heights)

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
    """A figure alone, as PNG, for a README."""
    return _painted(several(svg), 8, 130)


def _painted(drawings: list[str], margin: float, ppi: float) -> bytes:
    """Drawings on white as PNG, with a margin in points."""
    import typst

    with tempfile.TemporaryDirectory() as folder:
        for n, drawing in enumerate(drawings):
            Path(folder, f"{n}.svg").write_text(drawing, encoding="utf-8")
        images = "".join(f'#box(image("{n}.svg"))' for n in range(len(drawings)))
        source = Path(folder, "picture.typ")
        source.write_text(f"#set page(width: auto, height: auto, margin: {margin}pt, fill: white)\n{images}\n")
        return typst.compile(str(source), root=folder, format="png", ppi=ppi, font_paths=fonts.for_typst(False))  # type: ignore
