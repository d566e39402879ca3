"""The exporters, as nbconvert knows them; `python -m export` calls the third.

    PYTHONPATH=report jupyter nbconvert --to export.exporter.HTMLReport merged.ipynb
    PYTHONPATH=report jupyter nbconvert --to export.exporter.PDFReport merged.ipynb
    PYTHONPATH=report jupyter nbconvert --to export.exporter.Report merged.ipynb     (both, and pictures for a README)

A notebook becomes one tree in which each output is a block (assemble.py); each format typesets the blocks and pandoc
writes the tree. The user's own settings of nbconvert have no say: preprocessors and templates would change the report.
"""

import html
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nbconvert.exporters.exporter import Exporter
from nbformat import NotebookNode
from traitlets.config import Config

from . import fonts, metadata
from .assemble import Document, assemble
from .html import Html
from .origin import Journal, Place
from .pandoc import stringify
from .pdf import Pdf, drawn
from .reading import tidied
from .render import plain_text


class _Report(Exporter):
    """What the three share."""

    def __init__(self, config: Config | None = None, details: metadata.Metadata | None = None,
                 beside: Sequence[str] = (), **kw: object) -> None:  # fmt: skip
        super().__init__(config=Config(), **kw)
        self.details, self.beside, self.name = details, beside, "report"
        self.journal = Journal()

    def from_notebook_node(self, nb: NotebookNode, resources: dict | None = None, **kw: object) -> tuple:
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        self.journal.found.clear()
        self.name = resources.get("unique_key", self.name)
        details = self.details or metadata.load()
        document = assemble(tidied(nb), self.journal, details.contribution, details.main_figure)
        system = fonts.look_for_missing(_texts(document, details), self.journal)
        made = self.made(document, details, system)
        for message in self.journal.warnings:
            self.log.warning("%s", message)
        main, beside = made
        outputs = {self.name + name if name.startswith(".") else name: data
                   for name, data in beside.items()}  # fmt: skip
        return main, resources | {"outputs": resources.get("outputs", {}) | outputs}

    def made(
        self, document: Document, details: metadata.Metadata, system: bool
    ) -> tuple[str | bytes, dict[str, bytes]]:
        """(the file, what lies beside it)."""
        raise NotImplementedError


class HTMLReport(_Report):
    """One self-contained HTML file."""

    file_extension = ".html"
    output_mimetype = "text/html"

    def made(self, document: Document, details: metadata.Metadata, system: bool) -> tuple:
        return Html(document).page(details, self.beside), {}


class PDFReport(_Report):
    """A tagged PDF, typeset by Typst."""

    file_extension = ".pdf"
    output_mimetype = "application/pdf"

    def made(self, document: Document, details: metadata.Metadata, system: bool) -> tuple:
        pdf = Pdf(document)
        return pdf.compiled(pdf.source(details), system)[0], {}


class Report(_Report):
    """All at once, side by side: the page; PDF, first page and main figure as pictures beside it."""

    file_extension = ".html"
    output_mimetype = "text/html"

    def made(self, document: Document, details: metadata.Metadata, system: bool) -> tuple:
        def typeset() -> dict[str, bytes]:
            pdf = Pdf(document)
            made, first_page = pdf.compiled(pdf.source(details), system)
            beside = {".pdf": made, ".png": first_page}
            for block in document.pool.blocks():
                if block.kind == "figure" and details.main_figure and block.label == details.main_figure:
                    beside["main_figure.png"] = drawn(block.content["svg"])
            return beside

        with ThreadPoolExecutor(1) as other:  # the PDF is typeset while the page is
            beside = other.submit(typeset)
            page = Html(document).page(details, [f"{self.name}.pdf", *self.beside], f"{self.name}.png")
            return page, beside.result()


def _texts(document: Document, details: metadata.Metadata) -> list[tuple[Place, str]]:
    """Everything that is set in type, and where it stands."""
    texts = [(place, stringify(node)) for place, node in zip(document.places, document.tree, strict=True)]
    for block in document.pool.blocks():
        content = block.content
        words = [stringify(content.get("caption")), str(content.get("code", "") if content.get("shown", True) else "")]
        words += [cell.text for row in [*content.get("head", []), *content.get("rows", [])] for cell in row]
        words.append(plain_text(content.get("lines", [])))
        shown = [*content.get("pictures", []), *filter(None, [content.get("picture")])]
        drawings = [content.get("svg", ""), *(p.data.decode() for p in shown if p.mime == "image/svg+xml")]
        words += [html.unescape(word) for drawing in drawings for word in re.findall(r">([^<]+)<", drawing)]
        texts.append((block.place, "".join(words) + stringify(content.get("table"))))
    names = "".join(person.name + person.affiliation for person in details.authors)
    texts.append((Place("metadata.yaml"), details.title + details.subtitle + details.course + names))
    return texts
