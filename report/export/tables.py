"""A table of HTML, as pandas and others write it -> rows of cells, with what its author sees: spans, sides, shades."""

import re

from bs4 import BeautifulSoup, Tag

from .parts import Block, Cell

ROWS = 200  # of a stranger's table, beyond which it is cut
NUMERIC = re.compile(
    r"[-+\u2212]?[$€£]?[\d.,\u00a0\u202f ]*\d[\d.,]*(?:e[-+]?\d+)?\s?(?:%|[a-zA-Z]{1,2})?|nan|None|<NA>|NaT|-?inf|"
    r"\.\.\.|\u2026|-|",
    re.IGNORECASE,
)
COLOUR = re.compile(
    r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3}(?:[0-9a-fA-F]{2})?)?|[a-z]{3,20}"
    r"|rgba?\(\s*\d+\s*,\s*\d+\s*,\s*\d+\s*(?:,\s*[\d.]+\s*)?\)"
)
FIGURE = re.compile(r"([+\u2212-]?\d[\d,]*(?:\.\d+)?)")
MONO = re.compile(r"^[0-9a-f]{10,64}\b|(?:^|\s)--\w|^python\b.*\s-")
APART = ["p", "div", "li", "td", "th", "dt", "dd", "pre", "caption", "h1", "h2", "h3", "h4", "h5", "h6"]  # in a cell
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


def tables(soup: BeautifulSoup) -> list[Tag]:
    """The outermost tables."""
    return [table for table in soup.find_all("table") if not table.find_parent("table")]


def has_more_than_words(table: Tag) -> bool:
    """Whether its cells hold pictures, links or marked-up words; signs such as $ and * are those of data."""
    marked = table.find(["img", "sup", "sub", "b", "strong", "i", "em", "code", "kbd", "s", "del", "u", "mark"])
    return bool(marked or table.find("a", href=True) or "\ufdd0" in table.get_text())


def block(table: Tag, styles: str) -> tuple[Block, list[str]]:
    """(the table as a block, words for what of it is left out)."""
    shades, lost = _shades(styles)
    head: list[list[Cell]] = []
    rows: list[list[Cell]] = []
    for line in table.find_all("tr"):
        if line.find_parent("table") is not table:
            continue
        cells = [_cell(cell, shades) for cell in line.find_all(["td", "th"]) if cell.find_parent("tr") is line]
        in_head = line.find_parent("thead") is not None or not rows and not head and all(c.head for c in cells)
        (head if in_head and not rows else rows).append(cells)
    words = [f"its {lost} are left out"] if lost else []
    if len(rows) > ROWS:
        words.append(f"it has {len(rows):,} rows, of which the first {ROWS} are shown")
        rows = rows[:ROWS]
    head, rows = [row for row in head if row], [row for row in rows if row]
    grid = _grid(rows)
    width = max([sum(cell.cols for cell in row) for row in head] + [len(row) for row in grid] + [1])
    align = "".join("r" if _numeric([row[n] for row in grid if n < len(row)]) else "l" for n in range(width))
    caption = table.find("caption")
    content = {"head": head, "rows": rows, "align": align, "foreign": True, "width": width}
    if caption and caption.get_text(" ", strip=True):
        content["own_caption"] = caption.get_text(" ", strip=True)
    return Block("table", content), words


def given(header: list[str], rows: list[list[str]], align: str) -> dict:
    """The content of a table that comes as text. Numbers stand below each other, names that repeat are said once."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    pads = [_padded(column) if side == "r" else {} for column, side in zip(columns, align, strict=False)]
    grouped = bool(columns) and align[:1] == "l" and len(set(columns[0])) > 1
    again = [grouped and n > 0 and bool(name) and name == columns[0][n - 1] for n, name in enumerate(columns[0])]
    body = [
        [Cell(text, padded=pads[at].get(n, ()), again=again[n] and not at, mono=bool(MONO.search(text)))
         for at, text in enumerate(row)]
        for n, row in enumerate(rows)
    ]  # fmt: skip
    groups = [n for n in range(1, len(rows)) if any(again) and not again[n]]
    return {"head": [[Cell(text, head=True) for text in header]], "rows": body, "align": align, "width": len(align),
            "groups": groups}  # fmt: skip


def _padded(column: list[str]) -> dict[int, tuple[tuple[str, bool], ...]]:
    """The cells of a column whose numbers would not stand below each other, in pieces with what fills the gaps."""
    filled = {n: text for n, text in enumerate(column) if text.strip()}
    split = {n: FIGURE.split(text) for n, text in filled.items()}  # words, number, words, number, ...
    if len({tuple(FIGURE.sub("", text).split()) for text in filled.values()}) != 1 or not any("." in t for t in column):
        return {}
    numbers = {n: [piece.partition(".") for piece in pieces[1::2]] for n, pieces in split.items()}
    count = len(next(iter(numbers.values())))
    whole = [max(len(each[k][0]) for each in numbers.values()) for k in range(count)]
    after = [max(len(each[k][2]) for each in numbers.values()) for k in range(count)]
    padded = {}
    for n, each in numbers.items():
        pieces: list[tuple[str, bool]] = [(split[n][0], False)]
        for k, (left, point, right) in enumerate(each):
            pieces += [("0" * (whole[k] - len(left)) if k else "", True), (left + point + right, False)]
            pieces += [("." * (not point and after[k] > 0) + "0" * (after[k] - len(right)), True)]
            pieces += [(split[n][2 * k + 2], False)]
        opened = next((at for at, (piece, fills) in enumerate(pieces) if "(" in piece and not fills), None)
        if opened is not None:  # what fills a parenthesis goes behind it, so that all begin below each other
            inside = pieces[opened:]
            filling = "".join(piece for piece, fills in inside if fills)
            pieces[opened:] = [*(one for one in inside if not one[1]), (filling, True)]
        if any(fills and piece for piece, fills in pieces):
            padded[n] = tuple(piece for piece in pieces if piece[0])
    return padded


def split(content: dict, widths: list[float], line: float) -> list[dict]:
    """A table that is wider than any page as several, each with the heads of its rows; [] where its spans forbid it."""
    rows = [*content["head"], *content["rows"]]
    count = len(content["align"])
    if any(cell.cols > 1 or cell.rows > 1 for row in rows for cell in row) or any(len(row) != count for row in rows):
        return []
    heads = next((n for n in range(count) if not all(row[n].head for row in content["rows"])), 0)
    parts: list[list[int]] = [[]]
    for n in range(heads, count):
        if parts[-1] and sum(widths[k] for k in [*range(heads), *parts[-1], n]) > line:
            parts.append([])
        parts[-1].append(n)
    chosen = [[*range(heads), *part] for part in parts]
    return [
        {"head": [[row[n] for n in part] for row in content["head"]],
         "rows": [[row[n] for n in part] for row in content["rows"]],
         "align": "".join(content["align"][n] for n in part), "width": len(part)}
        for part in chosen
    ]  # fmt: skip


def sided(rows: list[list[Cell]], align: str) -> list[list[tuple[Cell, str]]]:
    """The cells with the side of the column that each begins in, counting what reaches down from rows above."""
    taken: dict[int, set[int]] = {}
    placed = []
    for number, row in enumerate(rows):
        at, line = 0, []
        for cell in row:
            while at in taken.get(number, ()):
                at += 1
            line.append((cell, align[at] if at < len(align) else "l"))
            for below in range(number + 1, number + cell.rows):
                taken.setdefault(below, set()).update(range(at, at + cell.cols))
            at += cell.cols
        placed.append(line)
    return placed


def _cell(tag: Tag, shades: dict[str, dict[str, str]]) -> Cell:
    for line in tag.find_all("br"):
        line.replace_with("\n")
    for made in tag.find_all(["script", "style"]):
        made.extract()
    for inner in tag.find_all(APART):
        inner.insert(0, " ")
        inner.append(" ")
    words = " ".join(tag.get_text().split(" ")).strip()
    looks = {name: value for key in str(tag.get("id", "")).split() for name, value in shades.get(key, {}).items()}
    looks |= _declared(str(tag.get("style", "")))
    return Cell(re.sub(r"\s+", " ", words), _span(tag, "colspan"), _span(tag, "rowspan"), tag.name == "th",
                looks.get("background-color", ""), looks.get("color", ""), bold="font-weight" in looks)  # fmt: skip


def _span(tag: Tag, name: str) -> int:
    text = str(tag.get(name, "1"))
    return min(max(1, int(text)), 1000) if text.isdigit() else 1


def _declared(style: str) -> dict[str, str]:
    """The colours of a style, and whether it is bold; nothing else of it, and no colour that is not one."""
    found = {}
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip().lower()
        if name in ("background", "background-color"):
            name = "background-color"
        if name == "font-weight" and (value in ("bold", "bolder") or value.isdigit() and int(value) >= 600):
            found[name] = "bold"
        if name in ("color", "background-color") and COLOUR.fullmatch(value):
            found[name] = hexadecimal(value)  # "" for inherit, transparent and the like
    return {name: value for name, value in found.items() if value}


def hexadecimal(colour: str) -> str:
    """A CSS colour as #rrggbb, on white where light falls through it, or "" where it is none."""
    from PIL import ImageColor

    seen = 1.0
    if found := re.fullmatch(r"rgba\((.*),\s*([\d.]+)\s*\)", colour):
        colour, seen = f"rgb({found[1]})", min(1.0, float(found[2].rstrip(".") or 0))
    try:
        *rgb, alpha = (*ImageColor.getrgb(colour), 255)[:4]
    except ValueError:
        return ""
    seen *= alpha / 255
    return "#{:02x}{:02x}{:02x}".format(*(round(255 - seen * (255 - part)) for part in rgb))


def _shades(styles: str) -> tuple[dict[str, dict[str, str]], str]:
    """(id of a cell -> its colours, what else the style says), of pandas' Styler."""
    shades: dict[str, dict[str, str]] = {}
    lost = ""
    for selectors, body in RULE.findall(re.sub(r"/\*.*?\*/", "", styles, flags=re.DOTALL)):
        looks = _declared(body)
        for selector in selectors.split(","):
            if (found := re.fullmatch(r"\s*#([\w-]+)\s*", selector)) and looks:
                shades.setdefault(found[1], {}).update(looks)
        if re.search(r"\bgradient\(", body):
            lost = "bars"
    return shades, lost


def _grid(rows: list[list[Cell]]) -> list[list[str | None]]:
    """The text of each place of a table; None where a row's head or a wider cell stands."""
    grid: list[list[str | None]] = [[] for _ in rows]
    for number, row in enumerate(rows):
        at = 0
        for cell in row:
            while at < len(grid[number]) and grid[number][at] != "\0":
                at += 1
            for below in range(number, min(number + cell.rows, len(rows))):
                line = grid[below]
                line.extend(["\0"] * (at + cell.cols - len(line)))
                for n in range(at, at + cell.cols):
                    line[n] = None if cell.cols > 1 or below > number else cell.text
            at += cell.cols
    return [[None if text == "\0" else text for text in line] for line in grid]


def _numeric(texts: list[str | None]) -> bool:
    known = [text.strip() for text in texts if text is not None]
    return any(re.search(r"\d", text) for text in known) and all(NUMERIC.fullmatch(text) for text in known)
