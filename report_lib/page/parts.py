"""What a notebook cell hands to the reader: Figure, Table, Prose, Listing.

Each shows itself in JupyterLab, and carries the same content as data under MIME, from which the exporters typeset HTML
and PDF. Class names and other strangers' text travel as data and never as markup.
"""

import dataclasses
import html
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from IPython.display import display

MIME = "application/vnd.report+json"


class Part:
    """One piece of the document; IPython asks it through `_repr_mimebundle_` for its `looks`: mime type -> what
    JupyterLab and plain terminals show."""

    looks: Callable[..., dict[str, str]]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        content = {"kind": type(self).__name__.lower(), **dataclasses.asdict(self)}  # type: ignore[call-overload]
        return {MIME: content, **self.looks()}


@dataclasses.dataclass(frozen=True)
class Figure(Part):
    """One or several drawings (SVG, one after the other) with a caption, an alternative text, and a label such as
    fig-curves to refer to."""

    label: str
    caption: str
    alt: str
    svg: str
    group: str = ""
    tab: str = ""

    def looks(self) -> dict[str, str]:
        caption = f"<figcaption><b>Figure.</b> {html.escape(self.caption)}</figcaption>"
        shown = f'<figure id="{html.escape(self.label)}">{card(self.svg)}{caption}</figure>'
        return {"text/html": shown, "text/plain": f"Figure: {self.caption}"}


@dataclasses.dataclass(frozen=True)
class Table(Part):
    """Rows of text with a header; `align` has one of l, c, r for each column, `notes` stand below the rows."""

    label: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    notes: tuple[str, ...] = ()
    group: str = ""
    tab: str = ""

    def looks(self) -> dict[str, str]:
        def line(cells: tuple[str, ...], tag: str) -> str:
            side = {"l": "left", "c": "center", "r": "right"}
            styled = zip(cells, self.align, strict=True)
            return "".join(f'<{tag} style="text-align:{side[a]}">{html.escape(c)}</{tag}>' for c, a in styled)

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        caption = f'<caption style="text-align:left"><b>Table.</b> {html.escape(self.caption)}</caption>'
        head = f"{caption}<thead><tr>{line(self.header, 'th')}</tr></thead>"
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self.notes)
        plain = "\n".join([self.caption, *(" | ".join(row) for row in (self.header, *self.rows)), *self.notes])
        table = f'<table id="{html.escape(self.label)}">{head}<tbody>{body}</tbody></table>'
        return {"text/html": table + notes, "text/plain": plain}


@dataclasses.dataclass(frozen=True)
class Prose(Part):
    """Sentences computed from runs, as Markdown; pass strangers' words through `text`."""

    markdown: str

    def looks(self) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}


@dataclasses.dataclass(frozen=True)
class Listing(Part):
    """Python code as it stands in the library, so that what the reader sees is what ran."""

    label: str
    caption: str
    code: str

    def looks(self) -> dict[str, str]:
        return {"text/markdown": f"```python\n{self.code}\n```", "text/plain": self.code}


def card(svg: str) -> str:
    """A drawing on paper of its own, since its ink is dark whatever the theme of the notebook."""
    return f'<div style="background:#fff;color:#1b1b1b;padding:8px;border-radius:4px;width:fit-content">{svg}</div>'


def tabs(group: str, /, **shown: Figure | Table | None) -> None:
    """Displays parts under their names as tabs of the HTML report; in the PDF small figures stand in a row, and
    elsewhere one stands below the other.

    The first keeps its label; those of the others end in their names. None is left out.
    """
    parts = {name: part for name, part in shown.items() if part}
    for at, (name, part) in enumerate(parts.items()):
        label = part.label if at == 0 else f"{part.label}-{name.replace('_', '-')}"
        display(dataclasses.replace(part, label=label, group=group, tab=name.replace("_", " ")))


def table(
    label: str, caption: str, rows: Sequence[Mapping[str, str]], notes: Sequence[str] = (), left: int | str = 2
) -> Table | None:
    """A table of rows that say under which head each cell stands; None without rows.

    So many columns on the `left` hold words and what follows them numbers; as text, it is one of l, c, r for each.
    """
    if not rows:
        return None
    heads = tuple(rows[0])
    align = left if isinstance(left, str) else "l" * left + "r" * (len(heads) - left)
    return Table(label, caption, heads, tuple(tuple(row[head] for head in heads) for row in rows), align, tuple(notes))


def listing(label: str, caption: str, *functions: Callable) -> Listing:
    """The source of `functions` without their docstrings, which the surrounding prose replaces."""
    return Listing(label, caption, "\n\n\n".join(_source(function) for function in functions))


def text(value: object) -> str:
    """`value` as Markdown that shows exactly those characters, whatever they are."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(value).split()))


def _source(function: Callable) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    if function.__doc__:
        source = re.sub(r'\n[ \t]*"""(?:.|\n)*?"""(?=\n)', "", source, count=1)
    return source.rstrip()
