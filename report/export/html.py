"""A document -> one self-contained HTML file."""

import functools
import html
import re
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from . import fonts
from .assemble import REFERENCES
from .drawing import inlined
from .metadata import Metadata
from .origin import ExportError
from .pandoc import Node, plain
from .parts import Block, Cell
from .render import Renderer
from .tables import sided

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
WIDE = 300  # points; wider drawings do not fit a phone
SHORT = 20  # signs of a cell that stay on one line
SIDES = {"l": "left", "c": "center", "r": "right"}


class Html(Renderer):
    target = "html5"
    nameless = 0

    def page(self, metadata: Metadata) -> str:
        body = self.write(metadata, [
            "--standalone", f"--template={TEMPLATE}", "--toc", "--toc-depth=2", "--number-sections", "--mathml",
            "--citeproc", f"--bibliography={REFERENCES}", "--syntax-highlighting=none"])  # fmt: skip
        light, dark = _code_styles()
        body = body.replace("/*pygments-light*/", light).replace("/*pygments-dark*/", dark)
        return body.replace("/*fonts*/", fonts.faces(html.unescape(body), "<math" in body))

    def figure(self, block: Block) -> list[Node]:
        content = block.content
        try:
            picture = inlined(content["svg"], block.label, content["alt"])
        except ExportError as error:
            raise ExportError(f"{block.place}: {error}") from error
        # What is wide is scrolled on a phone, since its text could not be read there otherwise.
        wide = any(float(width) > WIDE for width in re.findall(r'<svg[^>]*\bwidth="([\d.]+)', picture))
        box = f'<div class="wide" tabindex="0" role="region" aria-label="{block.number}">' if wide else "<div>"
        return self._figure(block, "", self.raw(f"{box}{picture}</div>"))

    def pictures(self, block: Block) -> list[Node]:
        shown = "".join(f"<div>{self._image(picture)}</div>" for picture in block.content["pictures"])
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
                _ink(cell.fill) if cell.fill else ""))) if value)  # fmt: skip
            short = " short" if len(cell.text) <= SHORT and tag == "td" else ""
            style = f' style="{looks}"' if looks else ""
            return f'<{tag}{spans} class="{SIDES[side]}{short}"{style}>{html.escape(cell.text)}</{tag}>'

        align = content["align"]
        head = "".join(
            "<tr>" + "".join(cell(c, "c" if c.cols > 1 else side, "th") for c, side in row) + "</tr>"
            for row in sided(content["head"], align)
        )
        body = "".join(
            "<tr>" + "".join(cell(c, side, "td") for c, side in row) + "</tr>" for row in sided(content["rows"], align)
        )
        inner = f"<table>{f'<thead>{head}</thead>' if head else ''}<tbody>{body}</tbody></table>"
        name = block.number or self._nameless()
        return self._tabular(
            block, [self.raw(f'<div class="table" tabindex="0" role="region" aria-label="{name}">{inner}</div>')]
        )

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
        begins = html.escape(code.strip().split("\n")[0])
        summary = f'<summary aria-label="code: {begins}">code</summary>'
        return [self.raw(f'<details class="code">{summary}{_python(code)}</details>')]

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
