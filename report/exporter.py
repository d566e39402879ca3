"""Executed notebooks -> the one document, as HTML and as PDF: a pair of nbconvert exporters that share everything
but the typesetting.

    jupyter nbconvert --to exporter.HTMLReport report.ipynb      (with this folder on PYTHONPATH)
    jupyter nbconvert --to exporter.PDFReport report.ipynb

A notebook becomes one Markdown text in which each output is a placeholder paragraph. pandoc turns the text into HTML
or Typst (fatal on any warning), then typeset outputs take their placeholders' places. So prose is Markdown, while
outputs, and with them all that strangers typed, stay data until they are escaped for the one format at hand.

Cell tags: `abstract` moves a cell's output to the front, `listing` shows a cell's code. Other code is folded away in
HTML and left out of the PDF. Text on stderr (progress) is left out of both; an error output stops the export.
"""

import base64
import dataclasses
import hashlib
import html
import json
import re
import tempfile
from pathlib import Path

import pypandoc
import typst
import yaml
from nbconvert.exporters import Exporter
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).resolve().parent
MIME = "application/vnd.report+json"  # report_lib.document.MIME; no import, so that any notebook can be exported
MARKDOWN = "markdown-raw_html-raw_tex-raw_attribute"  # raw markup would vanish from one of the two formats
KINDS = ("figure", "table", "listing")
NAMES = {"fig": "Figure", "tab": "Table", "lst": "Listing"}
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
REFERENCE = re.compile(r"\[(?:Figure|Table|Listing)\]\(#([\w-]+)\)")


class ExportError(Exception):
    """The notebook cannot become a document; one sentence says where and why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One output or piece of code, still data: kind is figure, table, listing, code, output, picture or html."""

    kind: str
    content: dict
    number: str = ""  # "Figure 3" where it can be referred to


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
            try:
                return pypandoc.convert_text(markdown, self.target, format=MARKDOWN, extra_args=arguments)
            except RuntimeError as error:
                raise ExportError(f"pandoc refuses the text: {error}") from error

    def paragraph(self, text: str) -> str:
        """How pandoc writes a paragraph that holds just `text`."""
        return text

    def block(self, block: Block, number: int) -> str:
        return getattr(self, block.kind)(block, number)

    def finish(self, body: str, blocks: list[Block]) -> str | bytes:
        return body


# --- notebook -> Markdown and blocks ---------------------------------------------------------------------------


def assemble(nb: NotebookNode) -> tuple[str, list[Block]]:
    """(Markdown with a \\0n\\0 paragraph for block n, the blocks)."""
    abstract: list[str | Block] = []
    pieces: list[str | Block] = []
    for index, cell in enumerate(nb.cells):
        where = f"cell {index + 1} ({cell.get('id', 'no id')})"
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            pieces.append(cell.source)
        elif cell.cell_type == "code":
            if "abstract" not in tags and cell.source.strip():
                pieces.append(Block("code", {"code": cell.source, "shown": "listing" in tags}))
            into = abstract if "abstract" in tags else pieces
            for output in cell.outputs:
                into.extend(read_output(output, where))
    blocks: list[Block] = []
    text: list[str] = []
    labels: dict[str, str] = {}
    counts = dict.fromkeys(NAMES, 0)
    if abstract:
        abstract.insert(0, "# At a glance {-}")
    for piece in abstract + pieces:
        if isinstance(piece, Block):
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
        else:
            text.append(piece.replace("\0", ""))

    def refer(match: re.Match) -> str:
        if match[1] not in labels:
            raise ExportError(f"the text refers to #{match[1]}, which nothing bears as its label")
        return f"[{labels[match[1]]}](#{match[1]})"

    markdown = REFERENCE.sub(refer, "\n\n".join(text))
    body, *appendix = re.split(r"^(?=# Appendix)", markdown, maxsplit=1, flags=re.MULTILINE)
    return "\n\n".join([body, "# References {-}\n\n::: {#refs}\n:::", *appendix]), blocks


def read_output(output: NotebookNode, where: str) -> list[str | Block]:
    """One output as Markdown text or a block. Raises ExportError for an error output and for one nothing can show."""
    if output.output_type == "error":
        raise ExportError(f"{where} ended in {output.ename}: {output.evalue}")
    if output.output_type == "stream":
        return [Block("output", {"text": output.text})] if output.name == "stdout" and output.text.strip() else []
    data = output.data
    if MIME in data:
        content = dict(data[MIME])
        kind = content.pop("kind")
        if kind == "prose":
            return [content["markdown"]]
        if kind not in KINDS or not re.fullmatch(r"[a-z]+-[a-z0-9-]+", content["label"]):
            raise ExportError(
                f"{where} has a {kind!r} labelled {content.get('label')!r}, which the report cannot place"
            )
        return [Block(kind, content)]
    if "application/vnd.jupyter.widget-view+json" in data:
        return []  # a control without its kernel; what it shows belongs into the cells around it
    for mime, suffix in PICTURES.items():
        if mime in data:
            alt = " ".join(data.get("text/plain", "picture").split())
            return [Block("picture", {"suffix": suffix, "data": data[mime], "alt": alt})]
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


def raw_picture(content: dict) -> bytes:
    """The bytes of a picture: SVG travels in notebooks as text, everything else as base64."""
    return content["data"].encode() if content["suffix"] == "svg" else base64.b64decode(content["data"])


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
        picture = self._image(content["svg"].encode(), "svg+xml", content["alt"])
        return f'<figure id="{html.escape(content["label"])}">{picture}{self._caption(block, "figcaption")}</figure>'

    def picture(self, block: Block, number: int) -> str:
        kind = {"svg": "svg+xml", "jpg": "jpeg"}.get(block.content["suffix"], block.content["suffix"])
        return f"<figure>{self._image(raw_picture(block.content), kind, block.content['alt'])}</figure>"

    def table(self, block: Block, number: int) -> str:
        content = block.content
        side = {"l": "left", "c": "center", "r": "right"}

        def row(cells: list[str], tag: str) -> str:
            styled = zip(cells, content["align"], strict=True)
            return "<tr>" + "".join(f'<{tag} class="{side[a]}">{html.escape(c)}</{tag}>' for c, a in styled) + "</tr>"

        head = f"<thead>{row(content['header'], 'th')}</thead>"
        body = "<tbody>" + "".join(row(cells, "td") for cells in content["rows"]) + "</tbody>"
        label = html.escape(content["label"])
        return (
            f'<div class="table" tabindex="0" role="region" aria-label="{block.number}"><table id="{label}">'
            f"{self._caption(block, 'caption')}{head}{body}</table></div>"
        )

    def listing(self, block: Block, number: int) -> str:
        label = html.escape(block.content["label"])
        return (
            f'<figure id="{label}" class="listing">{self._caption(block, "figcaption")}{self._python(block)}</figure>'
        )

    def code(self, block: Block, number: int) -> str:
        if block.content["shown"]:
            return self._python(block)
        return f'<details class="code"><summary>code</summary>{self._python(block)}</details>'

    def output(self, block: Block, number: int) -> str:
        return f'<pre class="output">{html.escape(block.content["text"].rstrip())}</pre>'

    def html(self, block: Block, number: int) -> str:
        clean = pypandoc.convert_text(block.content["html"], "html5", format="html-raw_html", extra_args=["--mathml"])
        return f'<div class="table">{clean}</div>'

    def finish(self, body: str, blocks: list[Block]) -> str:
        light, dark = (HtmlFormatter(style=style).get_style_defs("pre.python") for style in ("xcode", "monokai"))
        return body.replace("/*pygments-light*/", light).replace("/*pygments-dark*/", dark)

    @staticmethod
    def _image(data: bytes, kind: str, alt: str) -> str:
        # As an image rather than inline: two drawings' ids cannot meet, and nothing in a drawing can run.
        source = base64.b64encode(data).decode()
        return f'<img src="data:image/{kind};base64,{source}" alt="{html.escape(alt)}">'

    @staticmethod
    def _caption(block: Block, tag: str) -> str:
        return f"<{tag}><strong>{block.number}.</strong> {html.escape(block.content['caption'])}</{tag}>"

    @staticmethod
    def _python(block: Block) -> str:
        marked = highlight(block.content["code"], PythonLexer(), HtmlFormatter(nowrap=True)).rstrip()
        return f'<pre class="python" tabindex="0"><code>{marked}</code></pre>'


# --- PDF -------------------------------------------------------------------------------------------------------


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

    def picture(self, block: Block, number: int) -> str:
        content = block.content
        return f"#align(center, image({quote(f'block{number}.' + content['suffix'])}, alt: {quote(content['alt'])}))"

    def table(self, block: Block, number: int) -> str:
        content = block.content
        align = ", ".join({"l": "left", "c": "center", "r": "right"}[side] for side in content["align"])
        head = ", ".join(f"[{self._words(cell)}]" for cell in content["header"])
        cells = ", ".join(f"[{self._words(cell)}]" for row in content["rows"] for cell in row)
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
        return f"#figure({code}, caption: [{caption}], kind: raw, supplement: [Listing]) <{content['label']}>"

    def code(self, block: Block, number: int) -> str:
        return f'#raw({quote(block.content["code"])}, block: true, lang: "python")' if block.content["shown"] else ""

    def output(self, block: Block, number: int) -> str:
        return f"#raw({quote(block.content['text'].rstrip())}, block: true)"

    def html(self, block: Block, number: int) -> str:
        return pypandoc.convert_text(block.content["html"], "typst", format="html-raw_html")

    def finish(self, body: str, blocks: list[Block]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            for number, block in enumerate(blocks):
                if block.kind == "figure":
                    Path(folder, f"block{number}.svg").write_text(block.content["svg"], encoding="utf-8")
                elif block.kind == "picture":
                    Path(folder, f"block{number}.{block.content['suffix']}").write_bytes(raw_picture(block.content))
            source = Path(folder, "report.typ")
            source.write_text(body, encoding="utf-8")
            try:
                return self.compiled(source)
            except typst.TypstError as error:
                raise ExportError(f"Typst refuses the document: {error}") from error

    def compiled(self, source: Path) -> bytes:
        return typst.compile(str(source), root=str(source.parent))

    @staticmethod
    def _words(text: str) -> str:
        return f"#{quote(text)}"


class PNGReport(PDFReport):
    """The first page of the PDF as a picture, for a README."""

    file_extension = ".png"
    output_mimetype = "image/png"

    def compiled(self, source: Path) -> bytes:
        pages = typst.compile(str(source), root=str(source.parent), format="png", ppi=110)
        return pages[0] if isinstance(pages, list) else pages


def quote(text: str) -> str:
    """`text` as a Typst string, in which nothing has a meaning but the backslash and the quote."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
