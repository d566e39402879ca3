"""Formulas for Typst: what pandoc writes, in the words of the Typst that sets it, and those that it refuses."""

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import pandoc

# pandoc's names for what this Typst calls by others; a string within a formula stays as it is.
RENAMED = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<cap>\bsect\b)|(?P<ring>\.circle\b)|(?P<stroked>\bbracket\.[lr])\.double\b'
    r"|(?P<angle>\bquote\.angle\b)|(?P<planck>\bplanck\.reduce\b)|(?P<root>√)|(?P<frac>\bfrac\(, ?\))"
    # A bar is no relation, which would have its index below; a large sign is a formula's; \\! is a small step back.
    r"|(?P<bar>(?<![\w.])(?:parallel|divides)|[∥∣])(?=[_^])|\[(?P<large>[a-z]+(?:\.[a-z]+)+|[a-z]{2,})\]|(?P<back>#h\(-1em\))"
)
BAR = {"∥": "parallel", "∣": "divides"}
BARS = re.compile(r'delim: "\|\|"')  # of determinants and of norms, which Typst tells apart
OPENED = re.compile(r"\\begin\{([vV])matrix|\\left\s*(\\\||\\l?Vert)\s*\\begin\{matrix")
RULED = re.compile(r"\\hline|\\begin\{array\}\{[^}]*\|")  # which pandoc does not carry over
Formula = tuple[str, str]  # (InlineMath or DisplayMath, LaTeX)


def typeset(formulas: Iterable[Formula]) -> tuple[dict[Formula, str], set[str]]:
    """(formula -> its Typst, the LaTeX of those that cannot be typeset)."""
    wanted = list(dict.fromkeys(formulas))
    if not wanted:
        return {}, set()
    blocks = [pandoc.para([{"t": "Math", "c": [{"t": kind}, tex]}]) for kind, tex in wanted]
    mark = pandoc.raw("typst", "//\ufdd2")
    tree = {"pandoc-api-version": [1, 23, 1, 1], "meta": {}, "blocks": [n for block in blocks for n in (block, mark)]}
    text, messages = pandoc.run(["-f", "json", "-t", "typst", "--wrap=none"], json.dumps(tree))
    unread = {message["contents"] for message in messages if message["type"] == "CouldNotConvertTeXMath"}
    made = [part.strip() for part in text.split("//\ufdd2")[: len(wanted)]]
    found = {formula: _renamed(part, formula[1]) for formula, part in zip(wanted, made, strict=True)}
    found = {formula: part for formula, part in found.items() if formula[1] not in unread}
    if refused(list(found.values())):
        unread |= {formula[1] for formula, part in found.items() if refused([part])}
    return found, unread


def refused(parts: Sequence[str]) -> bool:
    """Whether Typst cannot set these formulas."""
    import typst

    with tempfile.TemporaryDirectory() as folder:
        main = Path(folder, "formulas.typ")
        main.write_text("\n\n".join(parts), encoding="utf-8")
        try:
            typst.Compiler(str(main), root=folder).compile(format="svg")
        except RuntimeError:
            return True
    return False


def _renamed(part: str, tex: str) -> str:
    def change(found: re.Match) -> str:
        new = {"text": found[0], "cap": "inter", "ring": ".o", "stroked": f"{found['stroked']}.stroked",
               "angle": "quote.chevron", "planck": "planck", "root": '"√"', "frac": 'frac("", "")',
               "bar": f' class("normal", {BAR.get(found["bar"], found["bar"])})', "large": f"[${found['large']}$]",
               "back": "#h(-0.167em)"}  # fmt: skip
        return new[str(found.lastgroup)]

    bars = iter(["|" if kind == "v" else "‖" for kind, _ in OPENED.findall(tex)])
    return RENAMED.sub(change, BARS.sub(lambda _: f'delim: "{next(bars, "‖")}"', part))
