"""Markdown of authors -> trees: what they may write in JupyterLab or Quarto does what they expect, in both formats."""

import re
from collections.abc import Callable

from . import markdown, pandoc, pictures, rawhtml
from .origin import ExportError, Journal
from .pandoc import Blocks, Node, inlines, stringify, walk
from .parts import Block, Html, Pool, Text, canonical, kind_of

ATTRIBUTED = re.compile(r"\{#([\w-]+)[^}]*\}")
# What nodes may carry besides; all other attributes would be looks, or worse.
CLASSES = {"unnumbered", "unlisted", "mark", "kbd", "smallcaps", "underline"}


def read(pieces: list[Text | Html], pool: Pool, journal: Journal) -> list[Blocks]:
    """The tree of each piece."""
    texts = [piece for piece in pieces if isinstance(piece, Text)]
    shared, known = markdown.definitions(texts), markdown.macros(texts)
    sources = [markdown.prepared(text, shared.get(text.place.notebook, {})) for text in texts]
    trees = pandoc.read(sources)
    pending: list[str] = []
    trees = [rawhtml.taken_out(tree, text, pool, journal, pending) for tree, text in zip(trees, texts, strict=True)]
    foreign = [piece.markup for piece in pieces if isinstance(piece, Html)]
    pages = pandoc.read(pending + foreign, pandoc.HTML)
    made = iter([rawhtml.put_back(tree, pages, pool) for tree in trees])
    others = iter([rawhtml.put_back(page, pages, pool) for page in pages[len(pending) :]])
    read_trees: list[Blocks] = []
    for piece in pieces:
        if isinstance(piece, Text):
            read_trees.append(_Meaning(piece, pool, journal, known.get(piece.place.notebook, {})).of(next(made)))
        else:
            read_trees.append(_Meaning(Text("", piece.place), pool, journal, {}).of(next(others)))
    return read_trees


def _titled(title: str, blocks: Blocks) -> Blocks:
    """What a callout holds, whose title, or else its first heading, is a line in bold."""
    words = inlines(title)
    if not title and blocks and blocks[0]["t"] == "Header":
        words, blocks = blocks[0]["c"][2], blocks[1:]
    return [pandoc.para([{"t": "Strong", "c": words}]), *blocks] if words else blocks


class _Meaning:
    """One piece's tree: numbers put in, pictures found, code and formulas made blocks, attributes left behind."""

    def __init__(self, text: Text, pool: Pool, journal: Journal, known: dict[str, tuple[int, str]]) -> None:
        self.text, self.pool, self.journal, self.known = text, pool, journal, known
        self.values = [dict(value) for value in text.values]

    def of(self, tree: Blocks) -> Blocks:
        return walk(tree, self.change)  # type: ignore[return-value]

    def warn(self, says: str) -> None:
        self.journal.warn(self.text.place, says)

    def change(self, node: Node) -> list[Node] | None:
        handler: Callable[[object], list[Node] | None] | None = getattr(self, f"_{node['t'].lower()}", None)
        return handler(node["c"]) if handler and "c" in node else None

    def _code(self, content: list) -> list[Node] | None:
        found = re.match(r"\{python\}\s+(.*)", content[1], re.DOTALL)
        value = self._value(found[1]) if found else None
        if value is None:
            return [{"t": "Code", "c": [["", [], []], content[1]]}]
        if value.get("markdown"):  # Markdown("**so**")
            return self.of([node for block in pandoc.read([value["text"]])[0] for node in block.get("c", [])
                            if block["t"] in ("Para", "Plain")])  # fmt: skip
        return inlines(str(value["text"]))

    def _codeblock(self, content: list) -> list[Node]:
        (_, classes, _), code = content
        language = (classes[0] if classes else "").strip("{}").lower()
        return [self.pool.node(Block("code", {"code": code, "shown": True, "language": language}))]

    def _para(self, content: list[Node]) -> list[Node] | None:
        """A labelled formula stands by itself, as does a picture that is all of its paragraph."""
        if len(content) == 1 and content[0]["t"] == "Image":
            return self._figure_of(content[0]["c"], [])
        if len(content) == 2 and content[0]["t"] == "Image" and content[1]["t"] == "Str" and (
                label := ATTRIBUTED.fullmatch(content[1]["c"])):  # fmt: skip
            return self._figure_of(content[0]["c"], [label[1]])
        if shown := self._labelled_pictures(content):
            return shown
        nodes: list[Node] = []
        rest: list[Node] = []
        at = 0
        while at < len(content):
            label = None
            if content[at]["t"] == "Math" and content[at]["c"][0]["t"] == "DisplayMath":
                beyond = at + 1 + (at + 1 < len(content) and content[at + 1]["t"] in ("Space", "SoftBreak"))
                if beyond < len(content) and content[beyond]["t"] == "Str":
                    label = rawhtml.EQUATION.fullmatch(content[beyond]["c"])
            if label:
                nodes += [{"t": "Para", "c": self.of(rest)}] if stringify(rest).strip() else []
                tex = markdown.TAG.sub("", content[at]["c"][1])  # the report's own number is in its place
                tex = markdown.expanded(tex, self.known).strip()
                block = Block("equation", {"tex": tex}, canonical(label[1] or label[2]), place=self.text.place)
                nodes.append(self.pool.node(block))
                rest, at = [], beyond + 1
                while at < len(content) and content[at]["t"] in ("Space", "SoftBreak"):
                    at += 1
            else:
                rest.append(content[at])
                at += 1
        if not nodes:
            return None
        return nodes + ([{"t": "Para", "c": self.of(rest)}] if stringify(rest).strip() else [])

    def _plain(self, content: list[Node]) -> list[Node] | None:
        return self._labelled_pictures(content) or None

    def _labelled_pictures(self, content: list[Node]) -> list[Node]:
        """A paragraph of pictures of which one has a label, as a figure each; nothing for any other."""
        found: list[tuple[list, list[str]]] = []
        for node in content:
            label = ATTRIBUTED.fullmatch(node["c"]) if node["t"] == "Str" else None
            if node["t"] == "Image":
                found.append((node["c"], []))
            elif label and found:
                found[-1][1].append(label[1])
            elif node["t"] not in ("Space", "SoftBreak"):
                return []
        labels = [canonical(label[0] if label else picture[0][0]) for picture, label in found]
        if not any(kind_of(label) == "fig" for label in labels):
            return []
        return [node for picture, label in found for node in self._figure_of(picture, label)]

    def _value(self, expression: str) -> dict | None:
        """What an expression in the text has come to."""
        expression = " ".join(expression.split())
        at = next((n for n, value in enumerate(self.values) if value["expression"] == expression), None)
        if at is None:
            return None
        same = sum(value["expression"] == expression for value in self.values) > 1
        return self.values.pop(at) if same else self.values[at]

    def _computed(self, text: str) -> str:
        """`text` with the values of its expressions."""
        return re.sub(
            r"`\{python\}\s+([^`]+)`", lambda m: str(value["text"]) if (value := self._value(m[1])) else m[0], text
        )

    def _math(self, content: list) -> list[Node]:
        tex = markdown.expanded(self._computed(content[1]), self.known)
        return [{"t": "Math", "c": [content[0], tex]}] if tex.strip() else []

    def _image(self, content: list) -> list[Node]:
        shown = self._picture(content)
        return [self.pool.inline(Block("image", {"picture": shown}, place=self.text.place))] if shown else []

    def _picture(self, content: list) -> pictures.Picture | None:
        (_, _, attributes), words, (source, _) = content
        given = dict(attributes)
        words = walk(words, lambda node: self._code(node["c"]) if node["t"] == "Code" else None)  # type: ignore
        alt = given.get("fig-alt") or given.get("alt") or stringify(words).strip()
        if not alt or re.fullmatch(r"[\w. -]+\.(?:png|jpe?g|gif|svg|webp|bmp)", alt, re.IGNORECASE):
            self.warn(f"the picture {source[:60]!r} has no alternative text; write it between the square brackets")
            alt = alt or "A picture"
        try:
            data = pictures.addressed(source, self.text.folders, self.text.attachments)
            return pictures.picture(data, alt, self.warn, pictures.points(given.get("width", "")))
        except ExportError as error:
            self.warn(f"{error}; it is left out")
            return None

    def _figure_of(self, content: list, labels: list[str]) -> list[Node]:
        (label, _, _), words, _ = content
        label = canonical(labels[0] if labels else label)
        shown = self._picture(content)
        if not shown:
            return []
        block = Block("pictures", {"pictures": [shown]}, place=self.text.place)
        if kind_of(label) == "fig":
            block.label, block.content["caption"] = label, self.of(words)
        return [self.pool.node(block)]

    def _table(self, content: list) -> list[Node]:
        (label, _, _), (_, blocks), *rest = content
        words = blocks[0]["c"] if blocks else []
        if words and words[-1]["t"] == "Str" and (found := ATTRIBUTED.fullmatch(words[-1]["c"])):
            label, words = found[1], words[:-1]
        label = canonical(label)
        bare = {"t": "Table", "c": [["", [], []], [None, []], *self.of(rest)]}  # type: ignore[arg-type]
        block = Block("grid", {"table": bare}, place=self.text.place)
        if words or kind_of(label) == "tab":
            name = self.text.place.notebook.rsplit("/")[-1].removesuffix(".ipynb")
            block.label = (
                label
                if kind_of(label) == "tab"
                else canonical(f"tab-{name}-{self.text.place.cell}-{self.pool.put([])}")
            )
            block.content["caption"] = self.of(words)
        return [self.pool.node(block)]

    def _definitionlist(self, content: list) -> list[Node]:
        """Terms on one line, as Typst wants them."""

        def joined(node: Node) -> list[Node] | None:
            return [{"t": "Space"}] if node["t"] in ("LineBreak", "SoftBreak") else None

        items = [[walk(self.of(term), joined), self.of(texts)] for term, texts in content]
        return [{"t": "DefinitionList", "c": items}]

    def _header(self, content: list) -> list[Node]:
        level, (label, classes, _), words = content
        kept = [name for name in classes if name in ("unnumbered", "unlisted")]
        return [{"t": "Header", "c": [level, [canonical(label), kept, []], self.of(words)]}]

    def _link(self, content: list) -> list[Node]:
        _, words, (target, _) = content
        target = target.strip()
        if target.startswith("#"):
            target = "#" + re.sub(r"^.*\d{5}\.md(?:__|$)", "", target[1:])
            if target == "#":
                self.warn(f"the link {stringify(words)[:60]!r} has no address and is left out")
                return self.of(words)
        elif not re.match(r"https?://|mailto:", target, re.IGNORECASE):
            self.warn(f"the link to {target[:80]!r} is left out; a report links to https://, mailto: or # only")
            return self.of(words)
        return [{"t": "Link", "c": [["", [], []], self.of(words), [target, ""]]}]

    def _span(self, content: list) -> list[Node] | None:
        return self._wrapped("Span", content)

    def _div(self, content: list) -> list[Node] | None:
        return self._wrapped("Div", content)

    def _wrapped(self, kind: str, content: list) -> list[Node]:
        (label, classes, attributes), inner = content
        if any(name.startswith("on") or name == "style" for name, _ in attributes):
            self.warn(f"{attributes[0][0]} is left out; a report brings its own looks and runs no scripts")
        kept = [name for name in classes if name in CLASSES]
        if kind == "Div" and any(name.startswith("callout") for name in classes):
            inner = _titled(dict(attributes).get("title", ""), inner)
        label = canonical(label)
        if label and not inner:  # in Typst, a place to link to needs something that stands there
            inner = inlines("\N{WORD JOINER}") if kind == "Span" else [pandoc.plain(inlines("\N{WORD JOINER}"))]
        return [{"t": kind, "c": [[label, kept, []], self.of(inner)]}]

    def _str(self, content: str) -> list[Node] | None:
        """Tasks: signs, since pandoc would write boxes that readers can tick."""
        signs = {
            "\N{BALLOT BOX WITH X}": "\N{BALLOT BOX WITH CHECK}",
            "\N{BALLOT BOX}": "\N{BALLOT BOX}\N{WORD JOINER}",
        }
        return [{"t": "Str", "c": signs[content]}] if content in signs else None

    def _rawblock(self, content: list) -> list[Node] | None:
        return None if content[0] == "report" else []

    _rawinline = _rawblock
