"""What a terminal would finally show of a text: carriage returns and cursor moves done, progress bars gone.

Colours survive as runs of (text, colours); all other control characters, which XML and Typst forbid, do not.
"""

import re

LINES = 60  # of one output, beyond which it is cut
WIDTH = 2000  # signs of one line, likewise
BAR = re.compile(r"\d+%\|.*\|\s*[\d.,kKMG]+/[\d.,kKMG?]+|\d+(?:\.\d+)?[kKMG]?it \[\d+:\d+")  # tqdm
CODE = re.compile(r"\x1b(?:\[([0-9;?]*)([ -/]*[@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_]|[()#][0-9A-Za-z])")
CONTROL = dict.fromkeys([*range(0x00, 0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0),
                         0xFFFE, 0xFFFF, *range(0xFDD0, 0xFDF0)])  # fmt: skip
COLOURS = "black red green yellow blue magenta cyan white".split()

Line = list[tuple[str, tuple[str, ...]]]


def clean(text: str) -> str:
    """`text` without control characters but line ends and tabs; half a surrogate pair becomes the sign for a loss."""
    return re.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text.translate(CONTROL)).replace("\r", "")


def screen(text: str) -> list[Line]:
    """The lines that finally stand on the screen, each as runs of (text, (colour, "bold" ...))."""
    if not re.search(r"[\r\b\x1b]", text):
        lines: list[Line] = [[(clean(line), ())] for line in text.expandtabs(8).split("\n")]
    else:
        lines = [_runs(row) for row in _rows(text)]
    while lines and not _plain(lines[-1]).strip():
        lines.pop()
    while lines and not _plain(lines[0]).strip():
        lines.pop(0)
    return [line for line in lines if not BAR.search(_plain(line))]


def plain(text: str) -> str:
    return "\n".join(_plain(line) for line in screen(text))


def cut(lines: list[Line]) -> tuple[list[Line], int]:
    """(the lines that are shown, how many are left out): a report is no log file."""
    short: list[Line] = [
        line if len(_plain(line)) <= WIDTH else [(_plain(line)[:WIDTH] + " \N{HORIZONTAL ELLIPSIS}", ())]
        for line in lines
    ]
    if len(short) <= LINES:
        return short, 0
    left_out = len(short) - LINES
    return [*short[:LINES], [(f"\N{HORIZONTAL ELLIPSIS} {left_out:,} more lines", ())]], left_out


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def _rows(text: str) -> list[list[tuple[str, tuple[str, ...]]]]:
    rows: list[list[tuple[str, tuple[str, ...]]]] = [[]]
    row = column = 0
    looks: tuple[str, ...] = ()
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "\x1b" and (code := CODE.match(text, at)):
            at = code.end()
            row, column, looks = _obey(code, rows, row, column, looks)
            continue
        at += 1
        if sign == "\n":
            row, column = row + 1, 0
            if row == len(rows):
                rows.append([])
        elif sign == "\r":
            column = 0
        elif sign == "\b":
            column = max(0, column - 1)
        elif sign == "\t":
            column += 8 - column % 8
        elif ord(sign) not in CONTROL:
            line = rows[row]
            line.extend([(" ", ())] * (column - len(line)))
            line[column : column + 1] = [(clean(sign), looks)]
            column += 1
    return rows


def _obey(code: re.Match, rows: list, row: int, column: int, looks: tuple[str, ...]) -> tuple:
    """An escape sequence: colours and the moves that progress bars make; anything else changes nothing."""
    numbers = [int(n) for n in re.findall(r"\d+", code[1] or "")]
    count = numbers[0] if numbers else 1
    match code[2]:
        case "m":
            looks = _looks(numbers or [0], looks)
        case "A":
            row = max(0, row - count)
        case "B":
            row = min(len(rows) - 1, row + count)
        case "C":
            column += min(count, WIDTH)
        case "D":
            column = max(0, column - count)
        case "G":
            column = min(max(0, count - 1), WIDTH)
        case "K":
            rows[row][:] = [] if numbers[:1] == [2] else rows[row][:column] if numbers[:1] != [1] else rows[row]
        case "J":
            if numbers[:1] == [2]:
                rows[:], row, column = [[]], 0, 0
    return row, column, looks


def _looks(numbers: list[int], looks: tuple[str, ...]) -> tuple[str, ...]:
    if 38 in numbers or 48 in numbers:  # one of 256 or 16 million colours: none of ours
        return looks
    for number in numbers:
        if number in (0, 39):
            looks = () if number == 0 else tuple(look for look in looks if look == "bold")
        elif number == 1:
            looks = (*[look for look in looks if look != "bold"], "bold")
        elif 30 <= number <= 37 or 90 <= number <= 97:
            looks = (*[look for look in looks if look == "bold"], COLOURS[number % 10])
    return looks


def _runs(row: list[tuple[str, tuple[str, ...]]]) -> Line:
    line: Line = []
    for sign, looks in row:
        if line and line[-1][1] == looks:
            line[-1] = (line[-1][0] + sign, looks)
        else:
            line.append((sign, looks))
    return line
