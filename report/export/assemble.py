"""The merged notebook -> one tree with the numbers and references of all figures, tables, listings and formulas."""

import dataclasses
import functools
import itertools
import re
from pathlib import Path

from nbformat import NotebookNode

from . import options, outputs, pandoc, prose, words
from .origin import ExportError, Journal, Place
from .pandoc import Blocks, Node, inlines, link, stringify, walk
from .parts import NAMES, Block, Pool, Text, canonical, kind_of
from .reading import place_of

REFERENCES = Path(__file__).resolve().parents[1] / "references.bib"
WORDS = {name: kind for kind, name in NAMES.items()}


@dataclasses.dataclass(frozen=True)
class Document:
    """What both formats are written from."""

    tree: Blocks
    pool: Pool
    journal: Journal
    formulas: dict[str, Place]
    places: list[Place]  # of each block of the tree


def assemble(nb: NotebookNode, journal: Journal, contribution: str = "", main_figure: str = "") -> Document:
    """The document; its main figure, wherever a notebook draws it, stands on the front page, if there is one.

    Raises ExportError where the notebooks cannot become a document."""
    pool = Pool()
    abstract: list[outputs.Piece] = []
    body: list[outputs.Piece] = []
    for cell in nb.cells:
        tags = set(cell.metadata.get("tags", []))
        (abstract if "abstract" in tags else body).extend(_pieces(cell, tags, pool, journal))
    if abstract:
        main = [piece for piece in body if isinstance(piece, Block) and piece.label and piece.label == main_figure]
        body = [piece for piece in body if piece not in main]
        abstract = [Text("# At a glance {-}", Place()), abstract[0], *main, *abstract[1:]]
    closing = Text(f"# Statement of contribution {{-}}\n\n{contribution}", Place("metadata.yaml"))
    pieces = [*abstract, *body, *[closing] * bool(contribution)]
    asides = [
        Text(block.content["caption"], block.place, into=block.content)
        for block in [*pool.blocks(), *(piece for piece in pieces if isinstance(piece, Block))]
        if isinstance(block.content.get("caption"), str)
    ]
    readable = [piece for piece in [*pieces, *asides] if not isinstance(piece, Block)]
    trees = dict(zip(map(id, readable), prose.read(readable, pool, journal), strict=True))
    for text in asides:
        first, *rest = trees[id(text)] or [pandoc.plain([])]
        text.into["caption"] = first["c"] if first["t"] in ("Para", "Plain") else inlines(stringify(first))  # type: ignore[index]
        if rest or first["t"] not in ("Para", "Plain"):
            left = stringify(text.into["caption"])[:60]  # type: ignore[index]
            journal.warn(text.place, f"a caption is one paragraph; of this one {left!r} is left")
    tree: Blocks = []
    origin: dict[int, Place] = {}
    for piece in pieces:
        made = [pool.node(piece)] if isinstance(piece, Block) else trees[id(piece)]
        origin |= {id(block): piece.place for block in made}
        tree += made
    labels = _numbered(tree, pool)
    references = _References(labels, pool, journal)
    for block in pool.blocks():
        for name in {"caption", "table"} & block.content.keys():
            block.content[name] = references.of([block.content[name]], block.place)[0] if name == "table" else (
                references.of(block.content[name], block.place))  # fmt: skip
    formulas = {math["c"][1]: origin[id(block)] for block in tree for math in pandoc.every(block, "Math")}
    formulas |= {block.content["tex"]: block.place for block in pool.blocks() if block.kind == "equation"}
    placed = [(node, origin[id(block)]) for block in tree for node in references.of([block], origin[id(block)])]
    tree = [node for node, _ in placed]
    closes = re.compile(r"Appendi|Statement of contribution$")
    if pandoc.every(tree, "Cite") or any(pandoc.every(block.content.get("caption"), "Cite") for block in pool.blocks()):
        place = next((n for n, node in enumerate(tree) if node["t"] == "Header" and node["c"][0] == 1
                      and closes.match(stringify(node["c"][2]))), len(tree))  # fmt: skip
        tree[place:place] = [pandoc.heading(1, "References", "unnumbered"), {"t": "Div", "c": [["refs", [], []], []]}]
        tree[place]["c"][1][0] = "references"
        placed[place:place] = [(node, Place()) for node in tree[place : place + 2]]
    return Document(tree, pool, journal, formulas, [place for _, place in placed])


def _pieces(cell: NotebookNode, tags: set[str], pool: Pool, journal: Journal) -> list[outputs.Piece]:
    place = place_of(cell)
    folders = cell.metadata.get("report", {}).get("folders", [])
    values = cell.metadata.get("report", {}).get("values", [])
    attachments = cell.get("attachments", {})
    if cell.cell_type == "markdown":
        for where, says in words.messages(cell.source, place):
            journal.warn(where, says)
        return [Text(cell.source, place, folders, attachments, values)]
    if cell.cell_type == "raw":
        return _raw(cell, place, folders, attachments, journal)
    if cell.cell_type != "code":
        return []
    chosen, code = options.parse(cell.source, tags, place, journal)
    if not chosen.include:
        return []
    pieces: list[outputs.Piece] = []
    if code.strip() and chosen.echo is not False and "abstract" not in tags:
        block = Block("code", {"code": code, "shown": bool(chosen.echo), "language": "python"}, place=place)
        if chosen.lst_cap:
            label = chosen.lst_label or chosen.label
            if not label.startswith("lst-"):
                label = canonical(f"lst-{place.notebook.rsplit('/')[-1].removesuffix('.ipynb')}-{place.cell}")
            block = Block("listing", {"code": code, "caption": chosen.lst_cap}, label, place=place)
        pieces.append(block)
    if chosen.output:
        context = outputs.Cell(place, chosen, journal, pool, folders, "raises-exception" in tags)
        made = outputs.read(cell, context)
        if pieces and made and isinstance(made[0], Block) and made[0].kind == "output" and block.content.get("shown"):
            block.content["printing"] = made[0].content["printed"] = True  # stand together
        pieces += made
    return pieces


def _raw(
    cell: NotebookNode, place: Place, folders: list[str], attachments: dict, journal: Journal
) -> list[outputs.Piece]:
    """A raw cell: Markdown where it says so, plain words where it says nothing, and no other language."""
    mime = cell.metadata.get("raw_mimetype", cell.metadata.get("format", "")) or ""
    if not cell.source.strip():
        return []
    if mime in ("text/markdown", "markdown"):
        return [Text(cell.source, place, folders, attachments)]
    if mime in ("", "text/plain"):
        return [Block("output", {"lines": [[(line, ())] for line in cell.source.split("\n")]}, place=place)]
    journal.warn(place, f"a raw cell of {mime} is left out, which only one of the formats could show")
    return []


def _numbered(tree: Blocks, pool: Pool) -> dict[str, str]:
    """Label -> "Figure 3", in the order of the text. Raises ExportError if a label stands twice."""
    labels: dict[str, str] = {}
    counts = dict.fromkeys(NAMES, 0)
    levels = [0] * 7
    names = {"references", "refs", "side", "toc", "show-code", "cite-this-report"}  # the document's own

    def look(node: Node) -> list[Node] | None:
        block = pool.block(node)
        if block and (kind := kind_of(block.label)):
            if block.label in labels:
                raise ExportError(f"{block.place}: the label {block.label!r} stands twice")
            counts[kind] += 1
            block.number = labels[block.label] = f"{NAMES[kind]}\N{NO-BREAK SPACE}{counts[kind]}"
        if node["t"] in ("Span", "Div") and node["c"][0][0]:
            if node["c"][0][0] in names:
                node["c"][0][0] = ""
            names.add(node["c"][0][0])
            labels.setdefault(node["c"][0][0], "")
        if node["t"] == "Header":
            level, attributes, title = node["c"]
            if "unnumbered" not in attributes[1]:
                levels[level:] = [levels[level] + 1] + [0] * (6 - level)
            name = attributes[0] or _slug(stringify(title))
            attributes[0] = next(n for k in itertools.count() if (n := f"{name}-{k}" if k else name) not in names)
            names.add(attributes[0])
            number = ".".join(map(str, levels[1 : level + 1])) if "unnumbered" not in attributes[1] else ""
            labels.setdefault(attributes[0], f"Section\N{NO-BREAK SPACE}{number}" if number else stringify(title))
        return None

    walk(tree, look)
    return labels


def _slug(title: str) -> str:
    """As pandoc names a section."""
    name = re.sub(r"[^\w\s.-]", "", title.replace("\N{RIGHT SINGLE QUOTATION MARK}", "")).strip().lower()
    return re.sub(r"^[^a-z\u00c0-\uffff]+", "", re.sub(r"\s+", "-", name)) or "section"


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", REFERENCES.read_text(encoding="utf-8"), re.MULTILINE))


def _apart(citation: dict) -> list[dict]:
    """The citations of [@a, @b], of which pandoc takes those after a comma for a remark on the first."""
    suffix = citation["citationSuffix"]
    at = next((n for n, node in enumerate(suffix) if node["t"] == "Cite"), None)
    if at is None:
        return [citation]
    first = citation | {"citationSuffix": [] if stringify(suffix[:at]).strip() in (",", ";") else suffix[:at]}
    inner = [each | {"citationMode": {"t": "NormalCitation"}} for each in suffix[at]["c"][0]]
    inner[-1] = inner[-1] | {"citationSuffix": [*inner[-1]["citationSuffix"], *suffix[at + 1 :]]}
    return [first, *(each for one in inner for each in _apart(one))]


class _References:
    """Links and citations that refer to something in the document, or say so where they do not."""

    def __init__(self, labels: dict[str, str], pool: Pool, journal: Journal) -> None:
        self.labels, self.pool, self.journal = labels, pool, journal
        self.place = Place()

    def of(self, nodes: list[Node], place: Place) -> list[Node]:
        self.place = place
        return walk(nodes, self.change)  # type: ignore[return-value]

    def change(self, node: Node) -> list[Node] | None:
        if node["t"] == "Link" and node["c"][2][0].startswith("#"):
            return self._link(node["c"][1], node["c"][2][0][1:])
        if node["t"] == "Cite":
            return self._cite(*node["c"])
        return None

    def _link(self, shown: list[Node], target: str) -> list[Node]:
        said = stringify(shown)
        label = canonical(target)
        if label not in self.labels and kind_of(label) not in ("", "sec"):
            raise ExportError(f"{self.place} refers to #{target}, which nothing bears as its label")
        if label not in self.labels and f"{label}-1" in self.labels:  # whose own name is taken
            label = f"{label}-1"
        if label not in self.labels:
            slug = _slug(target.replace("-", " "))
            if slug not in self.labels:
                self.journal.warn(self.place, f"the link to #{target} leads nowhere and is left out")
                return shown
            label = slug
        if said in WORDS and self.labels[label]:
            if not self.labels[label].startswith(said):
                raise ExportError(f"{self.place} calls #{target} a {said}; it is {self.labels[label]}")
            return [link(f"#{label}", [{"t": "Str", "c": self.labels[label]}])]
        return [link(f"#{label}", shown)]

    def _cite(self, citations: list[dict], shown: list[Node]) -> list[Node] | None:
        if any("Cite" in (node["t"] for node in citation["citationSuffix"]) for citation in citations):
            citations = [each for citation in citations for each in _apart(citation)]
            return self._cite(citations, shown) or [{"t": "Cite", "c": [citations, shown]}]
        names = [citation["citationId"] for citation in citations]
        bare = citations[0]["citationMode"]["t"] == "AuthorInText"
        labels = [canonical(name[:1].lower() + name[1:]) for name in names]
        if any(kind_of(label) and name not in _known() for label, name in zip(labels, names, strict=True)):
            nodes: list[Node] = []
            for label, citation in zip(labels, citations, strict=True):
                if label not in self.labels:
                    raise ExportError(
                        f"{self.place} refers to @{citation['citationId']}, which nothing bears as its label"
                    )
                number = self.labels[label]
                if not number:
                    number = NAMES[kind_of(label)]
                    self.journal.warn(self.place, f"@{citation['citationId']} has no number: what bears this label is "
                                      f"no {number.lower()} that the report counts")  # fmt: skip
                alone = citation["citationMode"]["t"] == "SuppressAuthor"
                words_shown = [{"t": "Str", "c": re.split("\N{NO-BREAK SPACE}", number)[-1] if alone else number}]
                nodes += [*inlines(", " if nodes else ""), *citation["citationPrefix"],
                          *([{"t": "Space"}] if citation["citationPrefix"] else []), link(f"#{label}", words_shown),
                          *citation["citationSuffix"]]  # fmt: skip
            return nodes
        if missing := [name for name in names if name not in _known()]:
            if bare:  # "@property" is a word; only what looks like a key may have been meant for one
                if re.search(r"\d{4}", missing[0]):
                    self.journal.warn(self.place, f"@{missing[0]} is not in references.bib and stands as it was typed")
                return shown
            raise ExportError(f"{self.place} cites @{missing[0]}, which is not in report/references.bib")
        return None
