"""Executed notebooks -> the one document, as HTML and as PDF: a pair of nbconvert exporters that share everything
but the typesetting.

    jupyter nbconvert --to exporter.HTMLReport report.ipynb      (with this folder on PYTHONPATH)
    jupyter nbconvert --to exporter.PDFReport report.ipynb
    jupyter nbconvert --to exporter.Report report.ipynb          (both, and pictures for a README)

A notebook becomes one Markdown text in which each output is a placeholder paragraph (assemble.py). pandoc turns the
text into HTML or Typst (fatal on any warning), then typeset outputs take their placeholders' places.
"""

import hashlib
import html
import re
import tempfile
from pathlib import Path

import pypandoc
import typst
import yaml
from assemble import Block, ExportError, assemble
from drawing import inlined
from nbconvert.exporters import Exporter
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from scan import scan
from webfonts import TEXT, faces

HERE = Path(__file__).resolve().parent
MARKDOWN = "markdown-raw_html-raw_tex-raw_attribute"  # raw markup would vanish from one of the two formats
WIDE = 300  # points; wider drawings do not fit a phone
SHORT = 20  # signs of a cell that stay on one line
SIDES = {"l": "left", "c": "center", "r": "right"}


class DocumentExporter(Exporter):
    """What HTML and PDF share."""

    target = ""  # pandoc's name of the format
    template = ""
    options: tuple[str, ...] = ()

    def from_notebook_node(self, nb: NotebookNode, resources: dict | None = None, **kw: object) -> tuple:
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        markdown, blocks = assemble(nb)
        token = "block" + hashlib.sha256(markdown.encode()).hexdigest()[:16]  # no text can contain its own hash
        body = self.pandoc(re.sub(r"\0(\d+)\0", rf"{token}x\1x", markdown))
        for number, block in enumerate(blocks):
            place = self.paragraph(f"{token}x{number}x")
            if body.count(place) != 1:
                raise ExportError(f"output {number} ({block.kind}) has no place in the document")
            body = body.replace(place, self.block(block, number))
        return self.finish(body, blocks), resources

    def pandoc(self, markdown: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            details = Path(folder, "metadata.yaml")
            shared = yaml.safe_load((HERE / "metadata.yaml").read_text(encoding="utf-8"))
            details.write_text(yaml.safe_dump(shared), encoding="utf-8")
            author = f"--variable=author-string:{quote(str(shared['author']))}"  # PDF metadata take text, not markup
            arguments = ["--standalone", f"--template={HERE / 'templates' / self.template}", "--toc", "--toc-depth=2",
                         f"--metadata-file={details}", "--citeproc", f"--bibliography={HERE / 'references.bib'}",
                         "--metadata=link-citations:true", "--mathml", author, "--fail-if-warnings",
                         "--wrap=none", *self.options]  # fmt: skip
            return pandoc(markdown, self.target, arguments)

    def formula(self, block: Block) -> str:
        """A labelled formula in the format's own language."""
        return pandoc(f"$${block.content['tex']}$$", self.target, ["--mathml", "--fail-if-warnings", "--wrap=none"])

    def paragraph(self, text: str) -> str:
        """How pandoc writes a paragraph that holds just `text`."""
        return text

    def block(self, block: Block, number: int) -> str:
        return getattr(self, block.kind)(block, number)

    def finish(self, body: str, blocks: list[Block]) -> str | bytes:
        return body


def pandoc(markdown: str, target: str, arguments: list[str]) -> str:
    """`markdown` in the language `target`. Raises ExportError if pandoc so much as warns."""
    try:
        return pypandoc.convert_text(markdown, target, format=MARKDOWN, extra_args=arguments)
    except RuntimeError as error:
        raise ExportError(f"pandoc refuses the text: {error}") from error


def plain(block: Block, target: str, *arguments: str) -> str:
    """A notebook's own HTML output in the language `target`, without its attributes. Raises ExportError for what could
    run or fetch something; in its sandbox, pandoc itself fetches nothing either."""
    safe = ["--sandbox", "--fail-if-warnings"]
    bare = "html-raw_html-native_divs-native_spans"
    try:
        page = pypandoc.convert_text(block.content["html"], "html5", format=bare, extra_args=safe)
        scan(page, block.content["where"])
        return pypandoc.convert_text(block.content["html"], target, format=bare, extra_args=[*safe, *arguments])
    except RuntimeError as error:
        raise ExportError(f"{block.content['where']} has HTML that pandoc refuses: {error}") from error


# --- HTML ------------------------------------------------------------------------------------------------------


class HTMLReport(DocumentExporter):
    """One self-contained HTML file."""

    file_extension = ".html"
    output_mimetype = "text/html"
    target = "html5"
    template = "report.html"
    options = ("--number-sections",)

    def paragraph(self, text: str) -> str:
        return f"<p>{text}</p>"

    def figure(self, block: Block, number: int) -> str:
        content = block.content
        picture = inlined(content["svg"], content["label"], content["alt"])
        # What is wide is scrolled on a phone, since its text could not be read there otherwise.
        wide = any(float(width) > WIDE for width in re.findall(r'<svg[^>]*\bwidth="([\d.]+)', picture))
        box = f'<div class="wide" tabindex="0" role="region" aria-label="{block.number}">' if wide else "<div>"
        return f'<figure id="{html.escape(content["label"])}">{box}{picture}</div>{self._caption(block)}</figure>'

    def equation(self, block: Block, number: int) -> str:
        place = block.number.split()[-1]
        label = html.escape(block.content["label"])
        formula = self.formula(block).strip().removeprefix("<p>").removesuffix("</p>")
        return f'<div class="equation" id="{label}">{formula}<span>({place})</span></div>'

    def table(self, block: Block, number: int) -> str:
        content = block.content

        def row(cells: list[str], tag: str) -> str:
            styled = zip(cells, content["align"], strict=True)
            filled = (
                f'<{tag} class="{SIDES[a]}{" short" * (len(c) <= SHORT and tag == "td")}">{html.escape(c)}</{tag}>'
                for c, a in styled
            )
            return f"<tr>{''.join(filled)}</tr>"

        head = f"<thead>{row(content['header'], 'th')}</thead>"
        body = "<tbody>" + "".join(row(cells, "td") for cells in content["rows"]) + "</tbody>"
        label = html.escape(content["label"])
        return (
            f'<figure id="{label}" class="tabular">{self._caption(block)}<div class="table" tabindex="0" role="region" '
            f'aria-label="{block.number}"><table>{head}{body}</table></div></figure>'
        )

    def listing(self, block: Block, number: int) -> str:
        label = html.escape(block.content["label"])
        return f'<figure id="{label}" class="listing">{self._caption(block)}{self._python(block)}</figure>'

    def code(self, block: Block, number: int) -> str:
        if block.content["shown"]:
            return self._python(block)
        begins = html.escape(block.content["code"].split("\n")[0])
        return (
            f'<details class="code"><summary aria-label="code: {begins}">code</summary>{self._python(block)}</details>'
        )

    def output(self, block: Block, number: int) -> str:
        return f'<pre class="output">{html.escape(block.content["text"].rstrip())}</pre>'

    def html(self, block: Block, number: int) -> str:
        return f'<div class="table">{plain(block, "html5", "--mathml")}</div>'

    def finish(self, body: str, blocks: list[Block]) -> str:
        light, dark = (HtmlFormatter(style=style).get_style_defs("pre.python") for style in ("xcode", "monokai"))
        scan(body[body.index("<main>") : body.index("</main>")])
        styled = body.replace("/*pygments-light*/", light).replace("/*pygments-dark*/", dark)
        return styled.replace("/*fonts*/", faces(html.unescape(body)))

    @staticmethod
    def _caption(block: Block) -> str:
        return f"<figcaption><strong>{block.number}.</strong> {html.escape(block.content['caption'])}</figcaption>"

    @staticmethod
    def _python(block: Block) -> str:
        marked = highlight(block.content["code"], PythonLexer(), HtmlFormatter(nowrap=True)).rstrip()
        # A line of its own for each line, so that the style sheet can mark where one wraps, and indent what goes on.
        code = block.content["code"].rstrip().split("\n")
        deep = [min(len(line) - len(line.lstrip(" ")), 24) // 4 for line in code] + [0] * marked.count("\n")
        lines = "".join(
            f'<span class="line in{depth}">{line}\n</span>'
            for depth, line in zip(deep, marked.split("\n"), strict=False)
        )
        return f'<pre class="python" tabindex="0"><code>{lines}</code></pre>'


# --- PDF -------------------------------------------------------------------------------------------------------


FULL_LINE = 90  # characters of the widest cells of all columns, beyond which a table is wider than a page


class PDFReport(DocumentExporter):
    """A tagged PDF, typeset by Typst."""

    file_extension = ".pdf"
    output_mimetype = "application/pdf"
    target = "typst"
    template = "report.typ"

    def figure(self, block: Block, number: int) -> str:
        content = block.content
        picture = f"image({quote(f'block{number}.svg')}, alt: {quote(content['alt'])})"
        return f"#figure({picture}, caption: [{self._words(content['caption'])}]) <{content['label']}>"

    def equation(self, block: Block, number: int) -> str:
        formula = self.formula(block).strip()
        return f'#[#set math.equation(numbering: "(1)")\n{formula} <{block.content["label"]}>]'

    def table(self, block: Block, number: int) -> str:
        content = block.content
        align = ", ".join(SIDES[side] for side in content["align"])
        # Where columns fight for the line, a unit goes below its name, not the words of a cell into the next column.
        columns = zip(content["header"], *content["rows"], strict=True)
        full = sum(max(map(len, column)) for column in columns) > FULL_LINE
        names = [quote(cell).replace(", ", ',"+linebreak()+"') if full else quote(cell) for cell in content["header"]]
        head = ", ".join(f"[#({name})]" for name in names)
        cells = ", ".join(f"[{self._cell(cell)}]" for row in content["rows"] for cell in row)
        figure = (
            f"#figure(table(columns: {len(content['align'])}, align: ({align},), table.header({head}), {cells}), "
            f"caption: [{self._words(content['caption'])}], kind: table) <{content['label']}>"
        )
        # A short table moves to the next page whole; only one that may not fit a page is broken.
        return figure if len(content["rows"]) <= 25 else f"#[#show figure: set block(breakable: true)\n{figure}]"

    def listing(self, block: Block, number: int) -> str:
        content = block.content
        code = f'raw({quote(content["code"])}, block: true, lang: "python")'
        caption = self._words(content["caption"])
        figure = f"#figure({code}, caption: [{caption}], kind: raw, supplement: [Listing]) <{content['label']}>"
        # As with tables: only what may not fit a page is broken.
        short = content["code"].count("\n") < 40
        return figure if short else f"#[#show figure: set block(breakable: true)\n{figure}]"

    def code(self, block: Block, number: int) -> str:
        return f'#raw({quote(block.content["code"])}, block: true, lang: "python")' if block.content["shown"] else ""

    def output(self, block: Block, number: int) -> str:
        return f"#raw({quote(block.content['text'].rstrip())}, block: true)"

    def html(self, block: Block, number: int) -> str:
        return plain(block, "typst")

    def finish(self, body: str, blocks: list[Block]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            for number, block in enumerate(blocks):
                if block.kind == "figure":
                    Path(folder, f"block{number}.svg").write_text(block.content["svg"], encoding="utf-8")
            source = Path(folder, "report.typ")
            source.write_text(body, encoding="utf-8")
            try:
                return self.compiled(source)
            except typst.TypstError as error:
                raise ExportError(f"Typst refuses the document: {error}") from error

    def compiled(self, source: Path) -> bytes:
        return typst.compile(str(source), root=str(source.parent), font_paths=[str(TEXT)])

    @staticmethod
    def _words(text: str) -> str:
        return f"#{quote(text)}"

    @classmethod
    def _cell(cls, text: str) -> str:
        """A few words stay on one line: no break at their spaces, nor (word joiner) at their hyphens."""
        return cls._words(
            text.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "-\u2060") if len(text) <= SHORT else text
        )


class PNGReport(PDFReport):
    """The first page of the PDF as a picture, for a README."""

    file_extension = ".png"
    output_mimetype = "image/png"

    def compiled(self, source: Path) -> bytes:
        pages = typst.compile(str(source), root=str(source.parent), format="png", ppi=110, font_paths=[str(TEXT)])
        return pages[0] if isinstance(pages, list) else pages


def main_figure(nb: NotebookNode) -> dict[str, bytes]:
    """main_figure.png, for a README: the figure that metadata.yaml calls so, if the text has it."""
    wanted = yaml.safe_load((HERE / "metadata.yaml").read_text(encoding="utf-8"))["main_figure"]
    found = [b.content["svg"] for b in assemble(nb)[1] if b.kind == "figure" and b.content["label"] == wanted]
    if not found:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "figure.svg").write_text(found[0], encoding="utf-8")
        source = Path(folder, "figure.typ")
        source.write_text('#set page(width: auto, height: auto, margin: 8pt, fill: white)\n#image("figure.svg")\n')
        picture = typst.compile(str(source), root=folder, format="png", ppi=130, font_paths=[str(TEXT)])
    return {"main_figure.png": picture}  # type: ignore[dict-item]


class Report(HTMLReport):
    """All at once, since starting nbconvert takes longer than they do: the page; PDF and two pictures beside it."""

    def from_notebook_node(self, nb: NotebookNode, resources: dict | None = None, **kw: object) -> tuple:
        page, resources = super().from_notebook_node(nb, resources, **kw)
        beside = {
            resources.get("unique_key", "report") + form.file_extension: form().from_notebook_node(nb)[0]
            for form in (PDFReport, PNGReport)
        }
        return page, resources | {"outputs": resources.get("outputs", {}) | beside | main_figure(nb)}


def quote(text: str) -> str:
    """`text` as a Typst string, in which nothing has a meaning but the backslash and the quote."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
