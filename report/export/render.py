"""What HTML and PDF share: a document's tree with each block typeset for the format, written by pandoc."""

import itertools
import re
from collections.abc import Iterator

from . import pandoc
from .assemble import Document
from .metadata import Metadata
from .origin import ExportError, Place
from .pandoc import Blocks, Node, inlines, walk
from .parts import Block


class Renderer:
    """Turns a Document into the text of one format; a method for each kind of block."""

    target = ""  # pandoc's name of the format

    def __init__(self, document: Document) -> None:
        self.document = document
        self.failed: set[str] = set()  # formulas that pandoc cannot read, which are shown as they were typed

    def placed(self, tree: Blocks) -> Blocks:
        """The tree with each block in the format's own language."""

        def change(node: Node) -> list[Node] | None:
            if node["t"] == "Math" and node["c"][1] in self.failed:
                return [{"t": "Code", "c": [["", [], []], node["c"][1]]}]
            if node["t"] == "Math":
                return self.formula(node)
            block = self.document.pool.block(node)
            if block is None:
                return None
            made = getattr(self, block.kind)(block)
            return made if node["t"] == "RawBlock" else [{"t": "RawInline", "c": piece["c"]} for piece in made]

        return walk(tree, change)  # type: ignore[return-value]

    def body(self) -> Blocks:
        return self.placed(self.document.tree)

    def grouped(self) -> Iterator[tuple[str | None, list[tuple[Node, Block | None]]]]:
        """The tree in runs of what is shown together as tabs, with the group's name, and of all else, with None."""
        blocks = [(node, self.document.pool.block(node)) for node in self.document.tree]
        groups = [block.content.get("group") or None if block else None for _, block in blocks]
        for n, (_, block) in enumerate(blocks[1:-1], 1):
            if block and block.kind == "code" and groups[n - 1] == groups[n + 1]:
                groups[n] = groups[n - 1]  # the code of the cell that follows in the group
        for group, pairs in itertools.groupby(zip(blocks, groups, strict=True), lambda pair: pair[1]):
            yield group, [pair for pair, _ in pairs]

    def alternatives(self, block: Block, count: int) -> list[str]:
        """What each of the `count` drawings of a figure is called by those who cannot see it."""
        alt = block.content["alt"]
        return [alt] + [f"{alt} Drawing {n} of {count}." for n in range(2, count + 1)]

    def formula(self, node: Node) -> list[Node] | None:
        """A formula in the format's language; None where pandoc's is that."""
        return None

    def raw(self, text: str) -> Node:
        return pandoc.raw(self.target, text)

    def write(self, metadata: Metadata, arguments: list[str]) -> str:
        """The document in the format's language. Raises ExportError if pandoc cannot write it."""
        for _ in range(3):
            tree = {
                "pandoc-api-version": [1, 23, 1, 1],
                "meta": self.meta(metadata),
                "blocks": self.body(),
            }
            text, messages = pandoc.run(
                ["-f", "json", "-t", self.target, "--wrap=none", *arguments], pandoc.json.dumps(tree)
            )
            unread = {m["contents"] for m in messages if m["type"] == "CouldNotConvertTeXMath"}
            if not unread - self.failed:
                break
            self._say(unread)
            self.failed |= unread
        for message in messages:
            if message["verbosity"] == "WARNING" and message["type"] != "CouldNotConvertTeXMath":
                raise ExportError(f"pandoc warns: {' '.join(message.get('pretty', message['type']).split())}")
        return text

    def _say(self, unread: set[str]) -> None:
        """Names the cells of formulas that cannot be read."""
        for tex in sorted(unread):
            place, words = self.document.formulas.get(tex, Place()), " ".join(tex.split())[:80]
            self.document.journal.warn(
                place, f"the formula {words!r} is no LaTeX that can be typeset, and stands as it was typed"
            )

    def meta(self, metadata: Metadata) -> dict:
        def words(text: str) -> dict:
            return {"t": "MetaInlines", "c": inlines(text)}

        def literal(text: str) -> dict:
            return {"t": "MetaString", "c": text}

        people = []
        for person in metadata.authors:
            fields = {"name": words(person.name)}
            if person.affiliation:
                fields["affiliation"] = words(person.affiliation)
            if person.email:
                address = pandoc.link(f"mailto:{person.email}", [{"t": "Str", "c": person.email}])
                fields["email"] = {"t": "MetaInlines", "c": [address]}
            people.append({"t": "MetaMap", "c": fields})
        names = ", ".join(person.name for person in metadata.authors)
        found = {
            "title": words(metadata.title),
            "pagetitle": literal(metadata.title),
            "people": {"t": "MetaList", "c": people},
            "names": words(names),
            "author-meta": literal(names),
            "date": literal(metadata.day),
            "iso-date": literal(metadata.date.isoformat()),
            "lang": literal(metadata.lang),
            "link-citations": {"t": "MetaBool", "c": True},
        }
        for name in ("subtitle", "course"):
            if text := getattr(metadata, name):
                found[name] = words(text)
        if metadata.repository:
            shown = re.sub(r"^https?://(?:www\.)?", "", metadata.repository).rstrip("/")
            found["repository"] = {
                "t": "MetaInlines",
                "c": [pandoc.link(metadata.repository, [{"t": "Str", "c": shown}])],
            }
        return found

    def caption(self, block: Block) -> list[Node]:
        """The inlines "Figure 3. Words"."""
        words = block.content.get("caption") or []
        if not block.number:
            return words
        return [
            {"t": "Strong", "c": [{"t": "Str", "c": f"{block.number}."}]},
            *([{"t": "Space"}] if words else []),
            *words,
        ]


def plain_text(lines: list) -> str:
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)
