"""Quarto's cell options: comments `#| key: value` at the top of a code cell."""

import dataclasses
import difflib
import re

import yaml

from .origin import Journal, Place
from .parts import canonical

OPTION = re.compile(r"#\s?\| ?")
KNOWN = ("label", "fig-cap", "fig-alt", "tbl-cap", "lst-cap", "lst-label", "echo", "output", "include", "warning")
# Quarto knows them; they would change nothing here, or nothing that an author would miss.
PASSED = set(
    "code-line-numbers code-overflow classes column fig-align fig-pos fig-format fig-dpi fig-column fig-env fig-link "
    "tbl-colwidths tbl-column renderings tags id cache slideshow message eval error".split()
)
SIZES = set("fig-width fig-height fig-asp out-width out-height".split())
WORDY = ("fig-subcap", "tbl-subcap", "code-summary", "title")  # would be missed
TAGS = {
    "remove-input": {"echo": False}, "remove_input": {"echo": False}, "hide-input": {"echo": False},
    "hide_input": {"echo": False}, "remove-output": {"output": False}, "remove_output": {"output": False},
    "hide-output": {"output": False}, "remove-cell": {"include": False}, "remove_cell": {"include": False},
    "hide-cell": {"include": False}, "listing": {"echo": True},
}  # fmt: skip


# What other options come to.
SAME: dict[object, dict[object, tuple[str, object]]] = {
    "results": {"hide": ("output", False), "asis": ("output", "asis"), "markup": ("output", True)},
    "code-fold": {"show": ("echo", True), False: ("echo", True), True: ("echo", None)},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What a cell says of itself; `echo` is None where it says nothing: folded in HTML, left out of the PDF."""

    label: str = ""
    fig_cap: tuple[str, ...] = ()
    fig_alt: tuple[str, ...] = ()
    tbl_cap: tuple[str, ...] = ()
    lst_cap: str = ""
    lst_label: str = ""
    echo: bool | None = None
    output: bool | str = True
    include: bool = True
    warning: bool = True


def parse(source: str, tags: set[str], place: Place, journal: Journal) -> tuple[Options, str]:
    """(the options, the code without them)."""
    lines = source.split("\n")
    begin = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("%%")), 0)
    count = begin
    while count < len(lines) and (OPTION.match(lines[count]) or count > begin and not lines[count].strip() and
                                  any(OPTION.match(line) for line in lines[count:])):  # fmt: skip
        count += 1
    code = "\n".join(lines[:begin] + lines[count:]).strip("\n")
    values: dict = {}
    for tag in tags & TAGS.keys():
        values |= TAGS[tag]
    if count > begin:
        try:
            given = yaml.safe_load("\n".join(OPTION.sub("", line) for line in lines[begin:count])) or {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = begin + mark.line + 1 if mark else 1
            says = "its cell options are no YAML and are read line by line; put a text with a colon into quotes"
            journal.warn(place.at(line), says)
            pairs = [OPTION.sub("", line).partition(":") for line in lines[begin:count]]
            given = {key.strip(): _plain(text.strip()) for key, colon, text in pairs if colon and key.strip()}
        if not isinstance(given, dict):
            journal.warn(place, f"its cell options are no pairs `#| key: value` but {given!r}")
            given = {}
        for key, value in given.items():
            if "{python}" in str(value):
                journal.warn(place, f"the cell option {key!r} holds an expression, which is computed in Markdown only")
            if key in SAME and isinstance(value, str | bool) and value in SAME[key]:
                key, value = SAME[key][value]
            if key in KNOWN:
                values[str(key).replace("-", "_")] = _typed(str(key), value, place, journal)
            elif key in SIZES:
                says = f"the cell option {key!r} has no effect here; give the size to what draws, as by figsize="
                journal.warn(place, says)
            elif key in WORDY:
                journal.warn(place, f"the cell option {key!r} has no effect here, and what it says is left out")
            elif key in SAME or str(key).startswith(("layout", "panel")):
                journal.warn(place, f"the cell option '{key}: {value}' has no effect here")
            elif key == "eval" and value is False:
                values.setdefault("echo", True)
            elif key not in PASSED:
                close = difflib.get_close_matches(str(key), KNOWN, 1)
                journal.warn(
                    place, f"the cell option {key!r} is not known" + (f"; is {close[0]!r} meant?" if close else "")
                )
    return Options(**{key: value for key, value in values.items() if value is not None}), code


def _plain(text: str) -> object:
    """A value of YAML, or the text itself where it is none."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) else value


def _typed(key: str, value: object, place: Place, journal: Journal) -> object:
    if key in ("fig-cap", "fig-alt", "tbl-cap"):
        return tuple("" if text is None else str(text) for text in (value if isinstance(value, list) else [value]))
    if key in ("label", "lst-label"):
        return canonical(str(value or ""))
    if key == "lst-cap":
        return str(value or "")
    if key == "output" and value == "asis":
        return "asis"
    if key == "echo" and value == "fenced":
        return True
    if value is None:  # as if it were not there
        return None
    if not isinstance(value, bool):
        journal.warn(place, f"the cell option {key!r} is {value!r}; allowed are true and false")
        return None
    return value
