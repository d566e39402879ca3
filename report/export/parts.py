"""What a document is made of before it is typeset: blocks, still data, and the pieces between them."""

import dataclasses
import re

from .origin import Place
from .pandoc import Node, raw, raw_inline

NAMES = {"fig": "Figure", "tab": "Table", "lst": "Listing", "eq": "Equation", "sec": "Section"}
TOKEN = re.compile("\ufdd0(\\d+)\ufdd1")  # noncharacters, which reading.py took out of all that authors wrote


@dataclasses.dataclass
class Block:
    """One thing that is typeset by itself. `kind` is the name of the method of the exporters that does so."""

    kind: str
    content: dict
    label: str = ""
    number: str = ""  # "Figure 3" where it can be referred to
    place: Place = Place()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table; `fill` and `ink` are colours such as #ffcc00.

    `padded` is the text in pieces, (piece, whether it only takes up its room), where numbers stand below each other.
    """

    text: str
    cols: int = 1
    rows: int = 1
    head: bool = False
    fill: str = ""
    ink: str = ""
    padded: tuple[tuple[str, bool], ...] = ()
    again: bool = False  # says what the cell above it says
    mono: bool = False  # a hash or a command
    bold: bool = False


@dataclasses.dataclass
class Text:
    """Markdown of an author or of an output. What is read goes to `into[key]` where that is given."""

    markdown: str
    place: Place
    folders: list[str] = dataclasses.field(default_factory=list)
    attachments: dict = dataclasses.field(default_factory=dict)
    values: list[dict] = dataclasses.field(default_factory=list)
    into: dict | None = None


@dataclasses.dataclass
class Html:
    """HTML that sanitize.py has cleaned."""

    markup: str
    place: Place


class Pool:
    """Blocks and parts of trees by number; a tree holds the number, a text the sign for it."""

    def __init__(self) -> None:
        self.items: list[Block | list[Node]] = []

    def put(self, item: "Block | list[Node]") -> int:
        self.items.append(item)
        return len(self.items) - 1

    def token(self, item: "Block | list[Node]") -> str:
        return f"\ufdd0{self.put(item)}\ufdd1"

    def node(self, block: Block) -> Node:
        return raw("report", str(self.put(block)))

    def inline(self, block: Block) -> Node:
        return raw_inline("report", str(self.put(block)))

    def blocks(self) -> list[Block]:
        return [item for item in self.items if isinstance(item, Block)]

    def block(self, node: Node) -> Block | None:
        """The block that a node stands for."""
        if node.get("t") in ("RawBlock", "RawInline") and node["c"][0] == "report":
            item = self.items[int(node["c"][1])]
            return item if isinstance(item, Block) else None
        return None


def canonical(label: str) -> str:
    """tbl-x and tab-x are the same label; what no format could hold becomes a hyphen."""
    label = re.sub(r"^.*\d{5}\.md__", "", label.strip().lstrip("#"))  # pandoc's name of the text it stands in
    label = "".join(sign if sign == "-" or f"a{sign}".isidentifier() else "-" for sign in label)
    label = re.sub(r"-{2,}", "-", label).strip("-")
    return re.sub(r"^(?:tbl|tab)-", "tab-", label, flags=re.IGNORECASE) if label else label


def kind_of(label: str) -> str:
    """fig, tab, lst, eq, sec, or nothing that is numbered."""
    kind = label.split("-")[0].lower()
    return kind if kind in NAMES and "-" in label else ""
