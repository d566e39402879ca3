"""White that figures leave at the feet of pages: smaller where a figure and a block of text change places."""

import io
import re
from collections.abc import Callable, Iterator

MARK = "\n//\ufdd2\n"
FLOATS = re.compile(r"\A\s*#(?:figure|tabbed)\(")
MADE = r"#(?:raw|printing|output|align|loose|box|block|table|grid)\("  # by a cell: code, and what it shows
FIXED = re.compile(rf"\A\s*(?:=|#heading\(|#figure\(|#tabbed\(|{MADE})")
PPI = 24  # of the pages that are looked at for holes
FOOT = 842 - 46  # points from the top of a page at which its text ends
TOP = 104  # points from the top of a page within which stands what was moved there, a heading above it or none
HOLE = 36.0  # points of white that are let be
TRIALS = 24  # of moving a figure


def filled(source: str, holes: Callable[[str], dict[str, float]]) -> str:
    """The source with figures moved by a block where that makes the holes smaller that they leave on pages."""
    open_holes, tried = holes(source), 0
    settled: set[str] = set()  # where no move helps; what is moved below does not change that
    while tried < TRIALS and (label := next((label for label in open_holes if label not in settled), "")):
        settled.add(label)
        for moved in moves(source, label):
            left, tried = holes(moved), tried + 1
            if sum(left.values()) < sum(open_holes.values()) - 1:
                source, open_holes = moved, left
                settled.discard(label)
                break
    return source


def left_by(pages: list[bytes], places: list[tuple[str, int, float]]) -> dict[str, float]:
    """Label of a figure or table at the head of a page -> points of white that it left on the page before."""
    heads = {page: label for label, page, height in reversed(places) if page > 1 and height < TOP}
    holes = {label: white(pages[page - 2]) for page, label in sorted(heads.items())}
    return {label: hole for label, hole in holes.items() if hole > HOLE}


def moves(source: str, label: str) -> Iterator[str]:
    """The source with the text after a figure set before it, and with the figure before the text that it follows; no
    figure before another, none away from the code that drew it, and none into another section, but for those of the
    third level, whose heading and first paragraph are one block from then on."""
    blocks = source.split(MARK)
    at = next((n for n, block in enumerate(blocks) if f"<{label}>" in block and FLOATS.search(block)), 0)
    after = next((n for n in range(at, len(blocks)) if not FLOATS.search(blocks[n])), at)
    end = after + 1 + blocks[after].lstrip().startswith("===")
    drawn = at and re.match(rf"\s*{MADE}", blocks[at - 1])  # by the code above, or with what stands above
    if at < after and not drawn and _moveable(blocks[end - 1 : end]):
        passes = "\n\n".join(blocks[after:end])
        yield MARK.join([*blocks[:at], passes, *blocks[at:after], *blocks[end:]])
    if at and _moveable(blocks[at - 1 : at]):
        yield MARK.join([*blocks[: at - 1], blocks[at], blocks[at - 1], *blocks[at + 1 :]])


def _moveable(block: list[str]) -> bool:
    """Whether there is a block, and it is text that is no heading and has no output."""
    return any(text.strip() and not FIXED.search(text) for text in block)


def white(page: bytes) -> float:
    """Points of white between the last line of a page and its foot."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(page)) as image:
        dark = np.flatnonzero(np.asarray(image.convert("L")).min(axis=1) < 128) * 72 / PPI
    foot = FOOT - 2
    return float(foot - dark[dark < foot].max(initial=0))
