"""Does a text type a result that a cell should compute? A look at Markdown that never stops a report.

Meant are a share in percent, points, a decimal number beside an accuracy, a loss or seconds, `p = 0.03`, `3.2 times`.
Names (CIFAR-10, ResNet-18), years, versions, settings, counts and pages are an author's own and give no warning.
"""

import re
from collections.abc import Callable
from pathlib import Path

from .origin import ExportError, Place
from .reading import FENCE, FENCES, place_of, read

SPAN = r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)"
SPANS = re.compile(SPAN, re.DOTALL)
CODE = re.compile(f"{FENCE}|{SPAN}", re.MULTILINE | re.DOTALL)
MATH = re.compile(r"\$\$.*?\$\$|\$(?! )[^$\n]+(?<! )\$(?!\d)", re.DOTALL)
ASIDE = re.compile(
    r"\[[^\]\[\n]{0,500}@[^\]\n]{0,500}\]|\]\([^)\n]{0,500}\)|<!--.*?-->|<[^<>\n]{0,500}>|https?://\S+"
    r"|\{[^{}\n]{0,200}=[^{}\n]{0,200}\}",
    re.DOTALL,  # sizes of pictures
)

NUMBER = r"(?<![\w.-])[+\u2212-]?(?:\d[\d,]{0,20}(?:[.,]\d{1,20})?|\.\d{1,20})(?![\w.]{0,9}\d)"
DECIMAL = r"(?<![\w.])[+\u2212-]?(?:\d{1,15}[.,]\d{1,20}|\.\d{1,20})(?![\d.]{0,9}\.\d|\w)"
WORD = ("(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
        "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred)")  # fmt: skip
WORDS = rf"\b{WORD}(?:[- ]{WORD}){{0,5}}"
MEASURE = r"(?:accurac(?:y|ies)|loss(?:es)?|error(?: rate)?s?|precision|recall|F1(?:[- ]score)?|AUC|nats)"
TIME = r"(?:s|sec(?:ond)?s?|min(?:ute)?s?|h|hours?|ms|milliseconds?)"
BETWEEN = r"[^\d\n.;:!?()]{0,28}?"
COMPARED = r"(?:as|faster|slower|more|less|fewer|better|worse|larger|smaller|longer|shorter|higher|lower|cheaper)"
RESULTS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:{NUMBER}|{WORDS})[ \u00a0\u202f]?(?:%|\uff05|per ?cent\b|percent(?:age)?[ -]?points?\b)",
        rf"{NUMBER}[ \u00a0-]?(?:points?|pp)\b(?! out\b)",
        rf"\b{MEASURE}\b{BETWEEN}{DECIMAL}",
        rf"{DECIMAL}[ \u00a0]?(?:[\w-]+ )?{MEASURE}\b",
        rf"{DECIMAL}[ \u00a0]?{TIME}\b(?!-)",
        r"\bp[ \u00a0]?[=<>\u2264][ \u00a0]?(?:0?[.,]\d+|\d+e-\d+)",
        rf"{DECIMAL}[ \u00a0-]?(?:times|fold)\b|{NUMBER}[ \u00a0]?(?:times|[x\u00d7]) {COMPARED}\b",
        rf"{DECIMAL}[ \u00a0]?(?:\u00b1|\+/-)|(?:\u00b1|\+/-)[ \u00a0]?{DECIMAL}",
    )
]
# What stands before or after a number that is a setting, a version or a convention.
SETTING = re.compile(
    r"(?:(?<!error )\brates?|\blr|\bmomentum|\bdecay|\bdropout|\btemperature|\bepsilon|\bbetas?|\bthreshold|"
    r"\bversions?|\bpython|\btorch\w*|\bv)(?: of| is| at|,| =|=|:)?[ \u00a0]*$",
    re.IGNORECASE,
)
CONVENTION = re.compile(r"[ \u00a0-]?(?:%|per ?cent)[ \u00a0-](?:confidence|credible|interval|CI\b)", re.IGNORECASE)


def typed_results(markdown: str) -> list[tuple[int, str, str]]:
    """(line, the words, the heading above or "") of each typed result of a Markdown text."""
    text = _blank(FENCES, markdown)
    shares = _blank(ASIDE, re.sub(r"`\{python\}[^`]*`", lambda m: _gap(m[0]), text))
    prose = _blank(ASIDE, _blank(MATH, _blank(SPANS, text)))
    found: dict[int, str] = {}
    for match in re.finditer(r"\d\s?\\?%", shares):  # a share is a result in `code` and in $math$ too
        whole = re.search(r"[\d.,]{1,20}\s?\\?%$", shares[max(0, match.end() - 25) : match.end()])
        if whole and not CONVENTION.match(shares, match.end() - 1):
            found.setdefault(match.end() - len(whole[0]), whole[0])
    for pattern in RESULTS:
        for match in pattern.finditer(prose):
            number = re.search(rf"{NUMBER}|{DECIMAL}", match[0])
            begin = match.start() + (number.start() if number else 0)
            end = match.start() + (number.end() if number else 0)
            if SETTING.search(prose[max(0, begin - 30) : begin]) or CONVENTION.match(prose, end):
                continue
            found.setdefault(begin, match[0].strip())
    headings = [(m.start(), m[1].strip()) for m in re.finditer(r"^#{1,6}[ \t]+([^\n{#]+)", text, re.MULTILINE)]
    seen: dict[int, tuple[int, str, str]] = {}
    for at, words in sorted(found.items()):
        line = markdown.count("\n", 0, at) + 1
        seen.setdefault(line, (line, " ".join(words.split()), next((h for b, h in reversed(headings) if b <= at), "")))
    return list(seen.values())


def messages(markdown: str, place: Place) -> list[tuple[Place, str]]:
    """(where, the warning) for each line that seems to type a result."""
    return [
        (
            place.at(line, heading or place.heading),
            f"{words!r} looks like a typed result; let `{{python}} ...` compute it",
        )
        for line, words, heading in typed_results(markdown)
    ]


def check_words(path: Path | str) -> list[str]:
    """The typed results of a notebook as messages; `make lint` wants none of our own."""
    try:
        return [f"{place}: {says}" for cell in read(Path(path)) if cell.cell_type == "markdown"
                for place, says in messages(cell.source, place_of(cell))]  # fmt: skip
    except ExportError as error:
        return [str(error)]


def outside_code(pattern: str, replacement: str | Callable[[re.Match[str]], str], markdown: str) -> str:
    """`re.sub`, but in nothing that Markdown sets as code."""
    compiled = re.compile(pattern, re.DOTALL | re.MULTILINE)
    pieces, end = [], 0
    for match in CODE.finditer(markdown):
        pieces += [compiled.sub(replacement, markdown[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*pieces, compiled.sub(replacement, markdown[end:])])


def _blank(pattern: re.Pattern, text: str) -> str:
    """`text` with blanks for what `pattern` finds, so that places stay."""
    return pattern.sub(lambda match: _gap(match[0]), text)


def _gap(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)
