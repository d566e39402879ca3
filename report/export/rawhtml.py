"""Raw HTML within Markdown: pieces of Markdown wait as signs within it until it is cleaned and read, too."""

import re

from . import pandoc, pictures, sanitize
from .origin import Journal
from .pandoc import Blocks, Node, inlines, stringify, walk
from .parts import TOKEN, Block, Pool, Text

ELEMENTS = sanitize.KEPT | set(sanitize.REMOVED) | set(
    "article aside body footer header html main nav img picture source time big tt wbr label data bdi bdo ruby rt rp "
    "address legend fieldset optgroup option output progress meter area param track hgroup menu keygen acronym nobr "
    "path g rect circle line polygon polyline text defs use".split()
)  # fmt: skip
EQUATION = re.compile(r"<!--\s*#?((?:eq)-[\w-]+)\s*-->|\{#(eq-[\w-]+)\}")
BLOCKS = set(
    "Para Plain Header BulletList OrderedList DefinitionList CodeBlock BlockQuote Table Div HorizontalRule Figure "
    "RawBlock LineBlock".split()
)


def taken_out(node: object, text: Text, pool: Pool, journal: Journal, pending: list[str]) -> list:
    """The tree with its raw HTML handed to `pending`, whose number stays in its place."""
    if isinstance(node, dict):
        return {key: taken_out(value, text, pool, journal, pending) for key, value in node.items()}  # type: ignore[return-value]
    if not isinstance(node, list):
        return node  # type: ignore[return-value]
    items = [taken_out(item, text, pool, journal, pending) for item in node]
    if not any(_is_raw(item) for item in items):
        return items
    kept: list = []
    for item in items:
        kept.extend(_simple(item) if _is_raw(item) else [item])  # type: ignore[arg-type]
    if not any(_is_raw(item) for item in kept):
        return kept
    block = any(item["t"] == "RawBlock" for item in kept if _is_raw(item))
    markup, waiting = "", []  # type: ignore[var-annotated]
    for item in [*kept, None]:
        if item is not None and not _is_raw(item):
            waiting.append(item)
            continue
        if waiting:
            if block and all(node["t"] == "Plain" for node in waiting):  # words between two tags, as of a heading
                markup += " ".join(pool.token(node["c"]) for node in waiting)
            else:
                markup += f"<div>{pool.token(waiting)}</div>" if block else pool.token(waiting)
            waiting = []
        markup += item["c"][1] if item else ""

    def warn(says: str) -> None:
        journal.warn(text.place, says)

    def picture(kind: str, source: str, alt: str) -> str:
        shown = pictures.in_html(kind, source, alt, "A picture", text.folders, text.attachments, warn)
        return pool.token(Block("image", {"picture": shown}, place=text.place)) if shown else ""

    pending.append(sanitize.cleaned(markup, warn, picture, block=block))
    return [{"t": "RawBlock" if block else "RawInline", "c": ["pending", str(len(pending) - 1)]}]


def _is_raw(item: object) -> bool:
    return isinstance(item, dict) and item.get("t") in ("RawBlock", "RawInline") and item["c"][0] == "html"


def _simple(item: Node) -> list[Node]:
    """What needs no reading: comments vanish, but for the label of a formula; <br> is a line break; no tag, no HTML."""
    text = item["c"][1].strip()
    if text.startswith("<!--"):
        label = EQUATION.fullmatch(text)
        return [{"t": "Str", "c": f"{{#{label[1]}}}"}] if label and item["t"] == "RawInline" else []
    if item["t"] == "RawInline":
        if re.fullmatch(r"<br\s*/?>", text, re.IGNORECASE):
            return [{"t": "LineBreak"}]
        name = re.match(r"</?([a-zA-Z][\w-]*)", text)
        if not name or name[1].lower() not in ELEMENTS:
            return inlines(item["c"][1])
    return [item]


def put_back(node: object, pages: list[Blocks], pool: Pool) -> Blocks:
    """The tree with the pages that were pending, and in these the pieces of Markdown, in their places."""

    def signs(text: str) -> list[Node]:
        nodes: list[Node] = []
        for n, piece in enumerate(TOKEN.split(text)):
            if n % 2 == 0:
                nodes += [{"t": "Str", "c": piece}] if piece else []
            else:
                item = pool.items[int(piece)]
                nodes += [pandoc.raw_inline("report", piece)] if isinstance(item, Block) else item
        return nodes

    def change(item: Node) -> list[Node] | None:
        kind = item["t"]
        if kind in ("RawBlock", "RawInline") and item["c"][0] == "pending":
            page = put_back(pages[int(item["c"][1])], pages, pool)
            return page if kind == "RawBlock" else _inlines_of(page)
        if kind == "Str" and TOKEN.search(item["c"]):
            return put_back(signs(item["c"]), pages, pool)
        if kind in ("Para", "Plain"):
            # One paragraph may hold signs of whole blocks, which then stand for themselves.
            content = put_back(item["c"], pages, pool)
            if len(content) == 1 and (alone := pool.block(content[0])) and alone.kind == "image":
                return [pool.node(Block("pictures", {"pictures": [alone.content["picture"]]}, place=alone.place))]
            made: list[Node] = []
            for node in content:
                if node["t"] in BLOCKS or (found := pool.block(node)) and found.kind == "table":
                    made.append(pandoc.raw("report", node["c"][1]) if node["t"] == "RawInline" else node)
                elif made and made[-1]["t"] == "waiting":
                    made[-1]["c"].append(node)
                else:
                    made.append({"t": "waiting", "c": [node]})
            return [
                {"t": kind, "c": part["c"]} if part["t"] == "waiting" else part
                for part in made
                if part["t"] != "waiting" or any(node["t"] not in ("Space", "SoftBreak") for node in part["c"])
            ]
        return None

    return walk(node, change)  # type: ignore[return-value]


def _inlines_of(blocks: Blocks) -> list[Node]:
    nodes: list[Node] = []
    for block in blocks:
        if nodes and block["t"] in ("Para", "Plain", "Header"):
            nodes.append({"t": "Space"})
        nodes += block["c"] if block["t"] in ("Para", "Plain") else [
            pandoc.raw_inline(*block["c"])] if block["t"] == "RawBlock" else inlines(stringify(block))  # fmt: skip
    return nodes
