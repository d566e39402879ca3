"""A document -> one self-contained HTML file."""

import functools
import html
import re
import textwrap
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from . import fonts
from .assemble import REFERENCES
from .drawing import inlined, night, several, size
from .metadata import Metadata
from .origin import ExportError
from .pandoc import Node, para, plain, stringify
from .parts import Block, Cell
from .pictures import DRAWN, LINE
from .render import Renderer
from .tables import sided

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
HEADING = re.compile(r'(<h[1-3][^>]* id="([^"]+)"[^>]*>)')
SHORT = 20  # signs of a cell that stay on one line
SIDES = {"l": "left", "c": "center", "r": "right"}


class Html(Renderer):
    target = "html5"
    nameless = 0
    beside: Sequence[str] = ()
    preview = ""

    def page(self, metadata: Metadata, beside: Sequence[str] = (), image: str = "") -> str:
        """The page; `beside` are files that lie beside it, and `image` is the one that previews of links show."""
        self.beside, self.preview = beside, image
        body = self.write(metadata, [
            "--standalone", f"--template={TEMPLATE}", "--toc", "--toc-depth=3", "--number-sections", "--mathml",
            "--citeproc", f"--bibliography={REFERENCES}", "--syntax-highlighting=none"])  # fmt: skip
        body = HEADING.sub(r'\1<a class="anchor" href="#\2" tabindex="-1" aria-hidden="true"></a>', body)
        light, dark = _code_styles()
        body = body.replace("/*pygments-light*/", light).replace("/*pygments-dark*/", dark)
        body = body.replace("/*night*/", night(body)).replace("/*cite*/", html.escape(_bibtex(metadata)))
        return body.replace("/*fonts*/", fonts.faces(html.unescape(body), "<math" in body))

    def meta(self, metadata: Metadata) -> dict:
        def literal(text: str) -> dict:
            return {"t": "MetaString", "c": text}

        files = [{"href": literal(urllib.parse.quote(name)), "name": literal(name.removesuffix(".ipynb"))}
                 for name in self.beside]  # fmt: skip
        found = {"description": literal(self._description()), "image": literal(self.preview),
                 "beside": {
                     "t": "MetaList", "c": [{"t": "MetaMap", "c": file} for file in files]}}  # fmt: skip
        return super().meta(metadata) | {name: value for name, value in found.items() if value["c"]}

    def _description(self) -> str:
        """The first words of the text that are no heading."""
        texts = (stringify(node) for node in self.document.tree if node["t"] not in ("Header", "RawBlock"))
        return textwrap.shorten(next(filter(str.strip, texts), ""), 200, placeholder="\N{HORIZONTAL ELLIPSIS}")

    def body(self) -> list[Node]:
        """The blocks; figures and tables of one group that follow each other stand together, for the script's tabs."""
        made: list[Node] = []
        for group, run in self.grouped():
            for node, block in run:
                placed = self.placed([node])
                if group and len(run) > 1 and block and block.kind != "code":
                    opened = '<div class="tabs">' * (node is run[0][0])
                    name = html.escape(block.content.get("tab") or block.number)
                    placed = [self.raw(f'{opened}<div class="tab" data-tab="{name}">'), *placed,
                              self.raw("</div>" + "</div>" * (node is run[-1][0]))]  # fmt: skip
                made += placed
        return made

    def figure(self, block: Block) -> list[Node]:
        content = block.content
        try:
            drawings = several(content["svg"])
            named = list(zip(drawings, self.alternatives(block, len(drawings)), strict=True))
            shown = "".join(
                inlined(svg, f"{block.label}-{n}" if n else block.label, alt) for n, (svg, alt) in enumerate(named)
            )
        except ExportError as error:
            raise ExportError(f"{block.place}: {error}") from error
        share = min(1.0, DRAWN * size(drawings[0])[0] / LINE)  # of the line, as in print
        looks = 'class="drawing several"' if len(drawings) > 1 else f'class="drawing" style="--share: {share:.2f}"'
        return self._figure(block, "", self.raw(f"<div {looks}>{shown}</div>"))

    def pictures(self, block: Block) -> list[Node]:
        shown = "".join(f'<div class="drawing">{self._image(picture)}</div>' for picture in block.content["pictures"])
        return self._figure(block, "picture", self.raw(shown))

    def image(self, block: Block) -> list[Node]:
        return [self.raw(self._image(block.content["picture"]))]

    def equation(self, block: Block) -> list[Node]:
        number = [{"t": "Span", "c": [["", [], []], [{"t": "Str", "c": f"({block.number.split()[-1]})"}]]}]
        tex = block.content["tex"]
        formula = {"t": "Code", "c": [["", [], []], tex]} if tex in self.failed else (
            {"t": "Math", "c": [{"t": "DisplayMath"}, tex]})  # fmt: skip
        return [{"t": "Div", "c": [[block.label, ["equation"], []], [plain([formula, *number])]]}]

    def table(self, block: Block) -> list[Node]:
        content = block.content

        def cell(cell: Cell, side: str, tag: str) -> str:
            tag = "td" if not cell.text else "th" if cell.head else tag
            spans = "".join(f' {name}="{n}"' for name, n in (("colspan", cell.cols), ("rowspan", cell.rows)) if n > 1)
            looks = "; ".join(f"{name}: {value}" for name, value in (("background", cell.fill), ("color", cell.ink or (
                _ink(cell.fill) if cell.fill else "")), ("font-weight", "700" * cell.bold)) if value)  # fmt: skip
            short = " short" if len(cell.text) <= SHORT and tag == "td" else ""
            style = f' style="{looks}"' if looks else ""
            words = html.escape(cell.text)
            if cell.padded:
                words = "".join(f'<span class="pad">{piece}</span>' if fills else html.escape(piece)
                                for piece, fills in cell.padded)  # fmt: skip
            elif cell.mono:
                words = (
                    "<code>" + " ".join(f"<span>{html.escape(word)}</span>" for word in cell.text.split()) + "</code>"
                )
            elif cell.again:
                words = f'<span class="again">{words}</span>'
            return f'<{tag}{spans} class="{SIDES[side]}{short}"{style}>{words}</{tag}>'

        align = content["align"]
        head = "".join(
            "<tr>" + "".join(cell(c, "c" if c.cols > 1 else side, "th") for c, side in row) + "</tr>"
            for row in sided(content["head"], align)
        )
        groups = content.get("groups", ())
        body = "".join(
            ('<tr class="group">' if n in groups else "<tr>")
            + "".join(cell(c, side, "td") for c, side in row)
            + "</tr>"
            for n, row in enumerate(sided(content["rows"], align))
        )
        still = len({len(row) for row in [*content["head"], *content["rows"]]}) == 1 and len(align) > 2
        looks = ' class="still"' if still else ""  # its first column stays where the others are scrolled
        inner = f"<table{looks}>{f'<thead>{head}</thead>' if head else ''}<tbody>{body}</tbody></table>"
        name = block.number or self._nameless()
        notes = [self.raw('<div class="notes">'), *map(para, content.get("notes", [])), self.raw("</div>")]
        return self._tabular(block, [
            self.raw(f'<div class="table" tabindex="0" role="region" aria-label="{name}">{inner}</div>'),
            *notes * bool(content.get("notes"))])  # fmt: skip

    def grid(self, block: Block) -> list[Node]:
        box = f'<div class="table" tabindex="0" role="region" aria-label="{block.number or self._nameless()}">'
        return self._tabular(block, [self.raw(box), *self.placed([block.content["table"]]), self.raw("</div>")])

    def listing(self, block: Block) -> list[Node]:
        label = html.escape(block.label)
        code = self.raw(f"{_python(block.content['code'])}</figure>")
        return [self.raw(f'<figure id="{label}" class="listing"><figcaption>'), plain(self.caption(block)),
                self.raw("</figcaption>"), code]  # fmt: skip

    def code(self, block: Block) -> list[Node]:
        code = block.content["code"]
        if block.content["language"] not in ("python", "py", "python3", "ipython"):
            return [self.raw(f'<pre class="output" tabindex="0">{html.escape(code)}</pre>')]
        if block.content["shown"]:
            return [self.raw(_python(code))]
        return [self.raw(f'<div class="code">{_python(code)}</div>')]

    def output(self, block: Block) -> list[Node]:
        def run(text: str, looks: tuple[str, ...]) -> str:
            words = html.escape(text)
            return f'<span class="{" ".join(f"ansi-{look}" for look in looks)}">{words}</span>' if looks else words

        text = "\n".join("".join(run(*part) for part in line).rstrip() for line in block.content["lines"])
        return [self.raw(f'<pre class="output" tabindex="0">{text}</pre>')]

    def _figure(self, block: Block, kind: str, picture: Node) -> list[Node]:
        label = f' id="{html.escape(block.label)}"' if block.label else ""
        style = f' class="{kind}"' if kind else ""
        opened = self.raw(f"<figure{label}{style}>")
        caption = self.caption(block)
        if not caption:
            return [opened, picture, self.raw("</figure>")]
        return [opened, picture, self.raw("<figcaption>"), plain(caption), self.raw("</figcaption></figure>")]

    def _tabular(self, block: Block, inner: list[Node]) -> list[Node]:
        if not block.label:
            return inner
        opened = self.raw(f'<figure id="{html.escape(block.label)}" class="tabular"><figcaption>')
        return [opened, plain(self.caption(block)), self.raw("</figcaption>"), *inner, self.raw("</figure>")]

    def _nameless(self) -> str:
        """What a table without number is called by those who cannot see it; no two regions may have one name."""
        self.nameless += 1
        return f"table without number {self.nameless}"

    @staticmethod
    def _image(picture: object) -> str:
        width = round(picture.width * 96 / 72)  # type: ignore[attr-defined]
        return f'<img src="{picture.source}" alt="{html.escape(picture.alt)}" width="{width}">'  # type: ignore[attr-defined]


def _ink(fill: str) -> str:
    """Black or white, whichever can be read on `fill`."""
    red, green, blue = (int(fill[n : n + 2], 16) for n in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"


def _bibtex(metadata: Metadata) -> str:
    name = re.sub(r"\W", "", metadata.authors[0].name.split()[-1].lower())
    title = f"{metadata.title}: {metadata.subtitle}" if metadata.subtitle else metadata.title
    fields = {"author": " and ".join(f"{{{person.name}}}" for person in metadata.authors), "title": f"{{{title}}}",
              "year": str(metadata.date.year), "note": metadata.course, "url": metadata.repository}  # fmt: skip
    lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items() if value)
    return f"@misc{{{name or 'report'}{metadata.date.year},\n{lines}}}"


@functools.cache
def _code_styles() -> tuple[str, str]:
    light, dark = (HtmlFormatter(style=style).get_style_defs("pre.python") for style in ("xcode", "monokai"))
    return light, dark


def _python(code: str) -> str:
    code = code.strip("\n").rstrip()
    marked = highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n")
    # A line of its own for each line, so that the style sheet can mark where one wraps, and indent what goes on.
    deep = [min(len(line) - len(line.lstrip(" ")), 24) // 4 for line in code.split("\n")] + [0] * marked.count("\n")
    lines = "".join(
        f'<span class="line in{depth}">{line}\n</span>' for depth, line in zip(deep, marked.split("\n"), strict=False)
    )
    return f'<pre class="python" tabindex="0"><code>{lines}</code></pre>'
