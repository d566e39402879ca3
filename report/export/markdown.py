"""The Markdown of authors -> what pandoc reads: LaTeX as MathJax has it, notes that another cell defines."""

import base64
import re

from . import sanitize
from .parts import Text, canonical
from .reading import FENCES
from .words import outside_code

ENVIRONMENTS = (
    "equation|align|gather|multline|eqnarray|alignat|flalign|displaymath|math|aligned|gathered|split|cases|"
    "[pbBvV]?matrix|smallmatrix|array|alignedat|subarray"
)
BARE = rf"(?<!\$)^[ \t]*(\\begin\{{({ENVIRONMENTS})(\*?)\}}.*?\\end\{{\2\3\}})[ \t]*$(?!\n?[ \t]*\$\$)"
LABELLED = r"\$\$((?:(?!\$\$).)*?)\\label\{([^}\n]+)\}((?:(?!\$\$).)*?)\$\$"
REFERRED = r"\$?\\(?:eqref|ref|autoref|cref)\{([^}\n]+)\}\$?"
TAG = re.compile(r"\\tag(\*?)\{([^{}]*)\}")
MACRO = re.compile(
    r"\\(?:re|provide)?newcommand\*?\s*\{?\\(\w+)\}?(?:\[(\d)\])?\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
    r"|\\DeclareMathOperator\*?\s*\{\\(\w+)\}\s*\{([^{}]*)\}|\\def\s*\\(\w+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)


# What stays as it was typed: comments, lines of code by their indentation, addresses.
INDENTED = r"(?: {4,}|\t)(?![ \t]*(?:[-*+]|\d+[.)])[ \t])[^\n]*"  # after a blank line; else a paragraph goes on
KEPT = rf"(?P<kept><!--.*?-->|(?:\A|\n[ \t]*\n){INDENTED}(?:\n{INDENTED})*|https?://[^\s)>]+)"
SPACED = (  # a formula with blanks inside: one that can be nothing else, or without words and with blanks on both sides
    r"(?<![\\$])\$(?!\$)(?:(?=[^$\n]*[\\^_=])[ \t]*(?P<tex>[^$\n]*?[^$\s])[ \t]*"
    r"|[ \t]+(?P<apart>(?![^$\n]*[A-Za-z]{2})[^$\s](?:[^$\n]*?[^$\s])?)[ \t]+)(?<!\\)\$(?![\d$])"
)
TABLE = r"^([^\n|]*\S[^\n|]*)\n(?=[ \t]*\|[^\n]*\|[ \t]*\n[ \t]*\|?[ :|-]*-[ :|-]*$)"
FLAG = r"(?<![\w!<&=/?#-])--(?=[A-Za-z])"


def prepared(text: Text, definitions: dict[str, str]) -> str:
    """The Markdown that pandoc reads: bare LaTeX environments are formulas, `1)` begins a list, notes are at hand."""
    markdown = FENCES.sub(_plain_fence, text.markdown.replace("\0", ""))

    def formula(match: re.Match) -> str:
        body = match[1]
        label = re.search(r"\\label\{([^}]*)\}", body)
        body = re.sub(r"\\label\{[^}]*\}", "", body)
        if match[2] in ("equation", "displaymath", "math", "split"):
            body = re.sub(r"^\\begin\{\w+\*?\}|\\end\{\w+\*?\}$", "", body.strip()).strip()
        body = re.sub(r"\n\s*\n", "\n", body)
        return f"$$ {body} $$" + (f" {{#{_equation_label(label[1])}}}" if label else "")

    if "<svg" in markdown.lower():  # as a whole, in which a Markdown reader would see tags and words
        markdown = outside_code(f"(?i:{sanitize.SVG.pattern})", _embedded, markdown)
    if "\\" in markdown:
        markdown = outside_code(BARE, formula, markdown)
        markdown = outside_code(REFERRED, lambda m: f"@{_equation_label(m[1])}", markdown)
        markdown = outside_code(LABELLED, lambda m: f"$${m[1]}{m[3]}$$ {{#{_equation_label(m[2])}}}", markdown)
    if "$" in markdown:  # as MathJax reads it, with spaces inside
        markdown = outside_code(f"{KEPT}|{SPACED}", lambda m: m["kept"] or f"${m['tex'] or m['apart']}$", markdown)
    markdown = outside_code(TABLE, r"\1\n\n", markdown)
    if "--" in markdown:  # of an option, no dash
        markdown = outside_code(
            rf"{KEPT}|(?P<tex>\$[^$\n]+\$)|{FLAG}", lambda m: m["kept"] or m["tex"] or r"\-\-", markdown
        )
    markdown = outside_code(r"^([ ]{0,3}\d{1,3})\)(?=[ \t])", r"\1.", markdown)
    if "$" not in markdown:
        markdown = MACRO.sub("", markdown)
    used = set(re.findall(r"\[\^([^\]\s]+)\](?!:)", markdown)) | set(re.findall(r"\]\[([^\]\n]+)\]", markdown))
    own = set(re.findall(r"^ {0,3}\[\^?([^\]\s]+)\]:", markdown, re.MULTILINE))
    shared = [definitions[name] for name in sorted(used - own) if name in definitions]
    return "\n\n".join([markdown, *shared])


def _plain_fence(block: re.Match) -> str:
    """A block of code whose first line names its language and nothing else: {python}, or what other tools add."""
    first, *rest = block[0].split("\n", 1)
    opened = re.match(r"( {0,3}(?:`{3,}|~{3,}))[ \t]*\{?[.=]?([\w+#-]*)", first)
    return "\n".join([f"{opened[1]}{opened[2]}", *rest]) if opened else block[0]


def _embedded(drawing: re.Match) -> str:
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(drawing[0].encode()).decode()}">'


def definitions(texts: list[Text]) -> dict[str, dict[str, str]]:
    """Notebook -> name -> the footnote or address that one of its cells defines; a cell of its own may use it."""
    found: dict[str, dict[str, str]] = {}
    note = re.compile(
        r"^ {0,3}\[(\^?)([^\]\n]+)\]:[ \t]*\S[^\n]*(?:\n(?:[ \t]+\S[^\n]*|[ \t]*(?=\n[ ]{4,}\S)))*", re.MULTILINE
    )
    for text in texts:
        for match in note.finditer(text.markdown):
            found.setdefault(text.place.notebook, {}).setdefault(match[2], match[0])
    return found


def macros(texts: list[Text]) -> dict[str, dict[str, tuple[int, str]]]:
    """Notebook -> the macros of LaTeX that its cells define, as MathJax holds them for a whole notebook."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for text in texts:
        if "\\" not in text.markdown:
            continue
        for match in MACRO.finditer(text.markdown):
            name = match[1] or match[4] or match[6]
            body = match[3] if match[1] else rf"\operatorname{{{match[5]}}}" if match[4] else match[7]
            found.setdefault(text.place.notebook, {})[name] = (int(match[2] or 0), body)
    return found


def expanded(tex: str, known: dict[str, tuple[int, str]]) -> str:
    """A formula without its definitions and with what they stand for."""
    tex = TAG.sub(lambda tag: rf"\qquad \text{{{tag[2] if tag[1] else f'({tag[2]})'}}}", MACRO.sub("", tex))
    tex = re.sub(r"\{\\(rm|bf|it|cal)\s+([^{}]*)\}", r"\\math\1{\2}", tex)
    for _ in range(5):
        before = tex
        for name, (count, body) in known.items():
            argument = r"\s*(?:\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|(\w))" * count

            def put(match: re.Match, body: str = body, count: int = count) -> str:
                for n in range(count):
                    body = body.replace(f"#{n + 1}", match[2 * n + 1] or match[2 * n + 2] or "")
                return f"{{{body}}}"

            tex = re.sub(rf"\\{name}(?![A-Za-z]){argument}", put, tex)
        if tex == before:
            break
    return tex


def _equation_label(name: str) -> str:
    name = canonical(re.sub(r"^eq[:_-]", "eq-", name))
    return name if re.match(r"(?:eq|fig|tab|lst|sec)-", name) else f"eq-{name}"
