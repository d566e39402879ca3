"""How every figure looks: one typeface with the text, each approach in its own colour."""

import collections
import io
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import font_source_serif_pro
import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from report_lib.config import APPROACHES
from report_lib.page.parts import Figure
from report_lib.runs import Runs

# Inches. On a page figures grow to the column's width; in print they shrink to its line of 12 cm, and on a phone to two
# thirds, where type of nine points can still be read.
WIDTH = 5.43
PANEL = 2.6  # of one of several drawings of a figure: beside each other on a page, one below the other on a phone

font_manager.fontManager.addfont(str(Path(font_source_serif_pro.font_directory) / "SourceSerifPro-Regular.ttf"))

STYLE: dict = {
    # Text stays text, so the reader's fonts step in for what the typeface lacks, such as 猫.
    "svg.fonttype": "none",
    "font.family": ["Source Serif Pro", "DejaVu Serif"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a class called $x$ is a name, no formula
    "svg.hashsalt": "report",  # the same drawing gives the same bytes
}


def styled(**more: object) -> AbstractContextManager:
    """The context in which figures are drawn."""
    return matplotlib.rc_context(STYLE | {name.replace("_", "."): value for name, value in more.items()})


def drawn(of: Drawing | Sequence[Drawing], label: str, caption: str, alt: str) -> Figure:
    """Matplotlib's figures as one part of the document, one or several drawings."""
    drawings = [of] if isinstance(of, Drawing) else of
    return Figure(label, caption, alt, "".join(map(_svg, drawings)))


def _svg(fig: Drawing) -> str:
    """SVG without date, the same bytes for the same drawing."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # measured as a box; the reader's font draws it
        fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(fig)
    svg = file.getvalue()
    return svg[svg.index("<svg") :]


def draw_seeds(axis: plt.Axes, runs: Runs, column: str, line: str = "-", scale: float = 1) -> float:
    """A column of epochs.csv, each seed thin and their mean strong; returns the mean's last value."""
    epochs, colour = runs[0].epochs["epoch"], APPROACHES[runs[0].approach].colour
    if len(runs) > 1:
        for run in runs:
            axis.plot(epochs, scale * run.epochs[column], line, color=colour, linewidth=0.6, alpha=0.5)
    mean = np.mean([run.epochs[column] for run in runs], axis=0)
    axis.plot(epochs, scale * mean, line, color=colour, marker="." if len(epochs) == 1 else "")
    return float(scale * mean[-1])


def name_ends(axis: plt.Axes, ends: Mapping[str, tuple[float, str]], away: float = 4) -> None:
    """Names each line at its right end, `away` points off, two lines' names at least a line of text apart."""
    axis.set_ylim(top=1.05 * axis.get_ylim()[1])
    points = 0.85 * 72 * axis.bbox.height / axis.figure.dpi  # of the axis, about; it is laid out later
    gap = 1.2 * plt.rcParams["font.size"] / points * (axis.get_ylim()[1] - axis.get_ylim()[0])
    right, last = axis.dataLim.x1, -np.inf
    for name, (height, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
        last = max(height, last + gap)
        axis.annotate(name, (right, last), (away, 0), textcoords="offset points", va="center", color=colour)


def short_names(names: Sequence[str], width: int = 14, lines: int = 1) -> list[str]:
    """Class names in at most so many lines of so many characters; no two of them become the same."""
    cut = [shorten(name, width, lines) for name in names]
    alike: dict[str, list[str]] = {}
    for name, short in zip(names, cut, strict=True):
        alike.setdefault(short, []).append(name)
    for at, (name, short) in enumerate(zip(names, cut, strict=True)):
        rest = name[len(os.path.commonprefix(alike[short])) :]  # what tells it from those that begin alike
        if len(alike[short]) > 1 and rest:
            cut[at] = shorten(f"{name[: max(0, width - 1 - len(rest))]}…{rest}", width, lines)
    count = collections.Counter(cut)
    return [short if count[short] == 1 else f"{short[: width - 5]}… {at + 1}" for at, short in enumerate(cut)]


def shorten(name: str, width: int = 14, lines: int = 1) -> str:
    """A name that stands alone in at most so many lines of so many characters, cut with an ellipsis."""
    if len(name) <= width:
        return name
    folded = textwrap.wrap(name, width, max_lines=lines, placeholder="…") or [""]
    return "\n".join(folded) if folded != ["…"] else f"{name[: width - 1]}…"
