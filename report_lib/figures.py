"""Records -> matplotlib drawings as SVG. Imports no torch. One colour is one approach in every figure."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure as Drawing

from report_lib.document import Figure
from report_lib.records import Run
from report_lib.tables import NAMES, accuracy_of, confusion_of, percent

# Okabe and Ito's blue and vermilion: apart for colour-blind readers, and of different lightness in grey.
COLOURS = {"linear_probe": "#0072B2", "full_finetune": "#D55E00"}
MARKERS = {"linear_probe": "o", "full_finetune": "s"}
WIDTH = 6.3  # inches, the text width of the PDF

STYLE: dict = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
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


def samples(pictures: np.ndarray, labels: np.ndarray, classes: Sequence[str], per_class: int = 4) -> Figure:
    """The first images of up to ten classes; `pictures` uint8 (N, h, w, 3), `labels` (N,)."""
    shown = range(min(len(classes), 10))
    with matplotlib.rc_context(STYLE):
        side = min(WIDTH / len(shown), 0.9)
        fig, axes = plt.subplots(per_class, len(shown), figsize=(side * len(shown), side * (per_class + 0.3)))
        axes = np.asarray(axes).reshape(per_class, len(shown))
        for axis in axes.flat:
            axis.axis("off")
        for column in shown:
            axes[0, column].set_title(_short(classes[column]), fontsize=8, loc="center")
            for row, index in enumerate(np.flatnonzero(labels == column)[:per_class]):
                axes[row, column].imshow(pictures[index])
    some = "classes" if len(shown) == len(classes) else f"first {len(shown)} of {len(classes)} classes"
    return _finish(
        fig,
        "fig-samples",
        f"Training images of the {some}, as stored, {pictures.shape[2]} × {pictures.shape[1]} pixels.",
        f"A grid of example images, one column for each of {len(shown)} classes.",
    )


def curves(runs: Sequence[Run]) -> Figure:
    """Loss and accuracy over the epochs of one approach; each seed thin, their mean strong."""
    approach, epochs = runs[0].approach, runs[0].epochs["epoch"]
    colour = COLOURS[approach]
    with matplotlib.rc_context(STYLE):
        fig, (loss, accuracy) = plt.subplots(1, 2, figsize=(WIDTH, 2.5))
        drawn = {"training": ("train_loss", ":"), "validation": ("validation_loss", "-")}
        for column, line in drawn.values():
            _seeds(loss, runs, column, colour, line, 1)
        _seeds(accuracy, runs, "validation_accuracy", colour, "-", 100)
        for run in runs:
            at = run.info["selected_epoch"]
            height = 100 * run.info["validation_accuracy"]
            accuracy.plot(at, height, marker=MARKERS[approach], color=colour, markeredgecolor="black", zorder=3)
        loss.set(title="Loss, nats per sample", xlabel="epoch", ylim=(0, None))
        accuracy.set(title="Validation accuracy, %", xlabel="epoch")
        _name_ends(loss, {name: (_end(runs, column), colour) for name, (column, _) in drawn.items()})
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
            axis.margins(x=0.02)
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds (thin) and their mean (strong)"
    return _finish(
        fig,
        f"fig-curves-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: loss and validation accuracy after each epoch, {seeds}. "
        "The outlined marker is the selected epoch.",
        f"Two line charts over {len(epochs)} epochs. Validation accuracy of the mean goes from "
        f"{percent(np.mean([r.epochs['validation_accuracy'].iloc[0] for r in runs]))} to "
        f"{percent(np.mean([r.epochs['validation_accuracy'].iloc[-1] for r in runs]))}.",
    )


def confusion(runs: Sequence[Run]) -> Figure:
    """Share of each true class (row) predicted as each class (column), test images, all seeds together."""
    classes = runs[0].classes
    count = confusion_of(runs)
    share = count / count.sum(1, keepdims=True)
    few = len(classes) <= 20
    approach = runs[0].approach
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        size = min(WIDTH * 0.9, 1.4 + 0.28 * len(classes))
        fig, axis = plt.subplots(figsize=(size, size * 0.86))
        picture = axis.imshow(share, cmap="Greys", vmin=0, vmax=1)
        if few:
            axis.set_xticks(range(len(classes)), [_short(name) for name in classes], rotation=45, ha="right")
            axis.set_yticks(range(len(classes)), [_short(name) for name in classes])
            for row, column in np.ndindex(share.shape):
                if share[row, column] >= 0.005:
                    shade = "white" if share[row, column] > 0.5 else "black"
                    axis.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", color=shade,
                              fontsize=7)  # fmt: skip
        else:
            fig.colorbar(picture, ax=axis, shrink=0.7)
        axis.set(xlabel="predicted class", ylabel="true class")
    off = count - np.diag(count.diagonal())
    worst = np.unravel_index(off.argmax(), off.shape)
    sentence = "No test image is misclassified"
    if off[worst]:
        taken = f"{classes[worst[0]]} taken for {classes[worst[1]]}"
        sentence = f"The commonest mistake is {taken} ({percent(share[worst])} of that class)"
    return _finish(
        fig,
        f"fig-confusion-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: share of each true class, in %, by predicted class. {sentence}.",
        f"Confusion matrix of {len(classes)} classes. {sentence}.",
    )


def validation_losses(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Validation loss of both approaches over the epochs."""
    with matplotlib.rc_context(STYLE):
        fig, axis = plt.subplots(figsize=(WIDTH * 0.62, 2.4))
        for approach, some in runs.items():
            _seeds(axis, some, "validation_loss", COLOURS[approach], "-", 1)
        axis.set(xlabel="epoch", ylabel="validation loss, nats", ylim=(0, None))
        _name_ends(axis, {NAMES[a]: (_end(some, "validation_loss"), COLOURS[a]) for a, some in runs.items()})
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    lowest = {a: np.mean([run.epochs["validation_loss"].min() for run in some]) for a, some in runs.items()}
    best = min(lowest, key=lowest.__getitem__)
    return _finish(
        fig,
        "fig-validation-loss",
        f"Validation loss after each epoch. The lowest, {lowest[best]:.3f}, is that of {NAMES[best]}.",
        f"Line chart of two approaches; {NAMES[best]} reaches the lower validation loss.",
    )


def accuracy_against_time(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Test accuracy with its interval against training seconds (logarithmic), one point an approach."""
    with matplotlib.rc_context(STYLE):
        fig, axis = plt.subplots(figsize=(WIDTH * 0.62, 2.4))
        for approach, some in runs.items():
            estimate = accuracy_of(some)
            seconds = float(np.mean([run.info["train_seconds"] for run in some]))
            reach = [[100 * (estimate.mean - estimate.low)], [100 * (estimate.high - estimate.mean)]]
            axis.errorbar(seconds, 100 * estimate.mean, yerr=reach, fmt=MARKERS[approach], capsize=3,
                          color=COLOURS[approach])  # fmt: skip
            axis.annotate(NAMES[approach], (seconds, 100 * estimate.mean), (7, 0), textcoords="offset points",
                          va="center", color=COLOURS[approach])  # fmt: skip
        axis.set(xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.margins(x=0.4, y=0.25)
    return _finish(
        fig,
        "fig-accuracy-time",
        f"Test accuracy against training time, with 95 % intervals ({estimate.method}).",
        "; ".join(f"{NAMES[a]}: {percent(accuracy_of(some).mean)}" for a, some in runs.items()),
    )


def _seeds(axis: plt.Axes, runs: Sequence[Run], column: str, colour: str, line: str, scale: float) -> None:
    epochs = runs[0].epochs["epoch"]
    if len(runs) > 1:
        for run in runs:
            axis.plot(epochs, scale * run.epochs[column], line, color=colour, linewidth=0.6, alpha=0.5)
    mean = np.mean([run.epochs[column] for run in runs], axis=0)
    axis.plot(epochs, scale * mean, line, color=colour, marker="." if len(epochs) == 1 else "")


def _end(runs: Sequence[Run], column: str) -> float:
    return float(np.mean([run.epochs[column].iloc[-1] for run in runs]))


def _name_ends(axis: plt.Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Names each line at its right end, two lines' names at least a line of text apart."""
    axis.set_ylim(top=1.05 * axis.get_ylim()[1])
    gap = 0.09 * (axis.get_ylim()[1] - axis.get_ylim()[0])
    right, last = axis.dataLim.x1, -np.inf
    for name, (height, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
        last = max(height, last + gap)
        axis.annotate(name, (right, last), (4, 0), textcoords="offset points", va="center", color=colour)


def _finish(fig: Drawing, label: str, caption: str, alt: str) -> Figure:
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(fig)
    svg = file.getvalue()
    return Figure(label, caption, alt, svg[svg.index("<svg") :])


def _short(name: str, length: int = 14) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
