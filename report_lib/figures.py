"""Records -> matplotlib drawings as SVG. Imports no torch. One colour is one approach in every figure."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure as Drawing
from scipy.special import softmax

from report_lib import stats
from report_lib.document import Figure
from report_lib.plan import Evidence
from report_lib.records import Run
from report_lib.tables import NAMES, accuracy_of, budget_points, calibration_of, classes_of, confusion_of, percent

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
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
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
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    lowest = {a: np.mean([run.epochs["validation_loss"].min() for run in some]) for a, some in runs.items()}
    best = min(lowest, key=lowest.__getitem__)
    return _finish(
        fig,
        "fig-validation-loss",
        f"Validation loss after each epoch. The lowest, {lowest[best]:.3f}, is that of {NAMES[best]}.",
        f"Line chart of two approaches; {NAMES[best]} reaches the lower validation loss.",
    )


SHADES = {"published": 0.35, "corrected": 1.0, "tuned": 0.7}  # opacity; the approach keeps its colour


def accuracy_against_time(evidence: Evidence) -> Figure:
    """Test accuracy with its interval against training seconds (logarithmic), one point an approach and recipe."""
    with matplotlib.rc_context(STYLE):
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 2.8))
        said = []
        for approach in NAMES:
            for recipe in evidence.recipes:
                some = evidence.runs[approach][recipe]
                estimate = accuracy_of(some)
                seconds = float(np.mean([run.info["train_seconds"] for run in some]))
                reach = [[100 * (estimate.mean - estimate.low)], [100 * (estimate.high - estimate.mean)]]
                axis.errorbar(seconds, 100 * estimate.mean, yerr=reach, fmt=MARKERS[approach], capsize=3,
                              color=COLOURS[approach], alpha=SHADES[recipe])  # fmt: skip
                name = NAMES[approach] if len(evidence.recipes) == 1 else f"{NAMES[approach]}, {recipe}"
                axis.annotate(name, (seconds, 100 * estimate.mean), (7, 0), textcoords="offset points",
                              va="center", color=COLOURS[approach])  # fmt: skip
                said.append(f"{name}: {percent(estimate.mean)}")
        axis.set(xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.margins(x=0.5, y=0.2)
    return _finish(
        fig,
        "fig-accuracy-time",
        f"Test accuracy against training time, with 95 % intervals ({estimate.method}).",
        "; ".join(said),
    )


def budgets(evidence: Evidence) -> Figure | None:
    """Test accuracy of both approaches against the number of labelled images a class; None without a curve."""
    points = budget_points(evidence)
    if len(points["linear_probe"]) == 1:
        return None
    with matplotlib.rc_context(STYLE):
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
        ends = {}
        for approach, some in points.items():
            estimates = [accuracy_of(runs) for _, runs in some]
            labels = [n for n, _ in some]
            means = [100 * estimate.mean for estimate in estimates]
            reach = [[100 * (e.mean - e.low) for e in estimates], [100 * (e.high - e.mean) for e in estimates]]
            axis.errorbar(labels, means, yerr=reach, fmt=f"{MARKERS[approach]}-", capsize=3, color=COLOURS[approach])
            ends[NAMES[approach]] = (means[-1], COLOURS[approach])
        axis.set(xlabel="labelled images a class", ylabel="test accuracy, %", xscale="log")
        axis.set_xticks(labels, [f"{n:,.0f}" for n in labels])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        _name_ends(axis, ends)
    first = {NAMES[a]: percent(accuracy_of(some[0][1]).mean) for a, some in points.items()}
    return _finish(
        fig,
        "fig-budgets",
        "Test accuracy by the number of labelled images a class, those for validation included; 95 % intervals.",
        f"Two lines. With {labels[0]:,.0f} labels a class: "
        + ", ".join(f"{name} {rate}" for name, rate in first.items()),
    )


def reliability(runs: Mapping[str, Sequence[Run]]) -> Figure | None:
    """Accuracy by confidence on the test images, as the networks are and temperature-scaled; all seeds together.

    None where runs held out no validation images to fit a temperature on.
    """
    if any(run.info["selected_on"] == "test" for some in runs.values() for run in some):
        return None
    with matplotlib.rc_context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharey=True)
        for scaled, axis in enumerate(axes):
            axis.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
            for approach, some in runs.items():
                logits, labels = [], []
                for one in map(Run.predictions, some):
                    t = stats.temperature(one["validation_logits"], one["validation_labels"]) if scaled else 1.0
                    logits.append(one["test_logits"] / t)
                    labels.append(one["test_labels"])
                bins = stats.reliability(np.concatenate(logits), np.concatenate(labels))
                enough = bins.count >= 10  # a bin of a handful says nothing
                axis.plot(100 * bins.confidence[enough], 100 * bins.accuracy[enough], f"{MARKERS[approach]}-",
                          markersize=3.5, color=COLOURS[approach], label=NAMES[approach])  # fmt: skip
            axis.set(title="temperature-scaled" if scaled else "as trained", xlabel="confidence, %")
        axes[0].set(ylabel="accuracy, %")
        axes[1].legend(loc="lower right")
    errors = {approach: calibration_of(some) for approach, some in runs.items()}
    return _finish(
        fig,
        "fig-reliability",
        "Reliability: how often test predictions of a confidence are right, in bins of equal width. On the diagonal a "
        "network is as often right as it says; below it, it is too sure of itself.",
        "; ".join(f"{NAMES[a]}: calibration error {percent(e['ece'])}, scaled {percent(e['ece_scaled'])}"
                  for a, e in errors.items()),
    )  # fmt: skip


def classes(runs: Mapping[str, Sequence[Run]], most: int = 20) -> Figure:
    """Accuracy on each class with its interval, both approaches; of many classes, those that differ most."""
    names = runs["linear_probe"][0].classes
    estimates = {approach: classes_of(some) for approach, some in runs.items()}
    gain = np.array([b.mean - a.mean for a, b in zip(*estimates.values(), strict=True)])
    shown = sorted(np.argsort(-np.abs(gain), kind="stable")[:most], key=lambda label: gain[label])
    with matplotlib.rc_context(STYLE):
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 0.5 + 0.24 * len(shown)))
        for offset, (approach, some) in zip((-0.12, 0.12), estimates.items(), strict=True):
            means = np.array([100 * some[label].mean for label in shown])
            reach = [[100 * (some[label].mean - some[label].low) for label in shown],
                     [100 * (some[label].high - some[label].mean) for label in shown]]  # fmt: skip
            axis.errorbar(means, np.arange(len(shown)) + offset, xerr=reach, fmt=MARKERS[approach], markersize=4,
                          color=COLOURS[approach], label=NAMES[approach], linewidth=1)  # fmt: skip
        axis.set_yticks(range(len(shown)), [_short(names[label], 24) for label in shown])
        axis.set(xlabel="test accuracy, %")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    few = "" if len(shown) == len(names) else f" The {len(shown)} of {len(names)} classes that differ most."
    return _finish(
        fig,
        "fig-classes",
        f"Accuracy on the test images of each class, with 95 % intervals, ordered by what fine-tuning gains.{few}",
        f"Dot plot of {len(shown)} classes; fine-tuning gains {100 * gain.min():+.1f} to {100 * gain.max():+.1f} "
        "percentage points.",
    )


def mistakes(runs: Mapping[str, Sequence[Run]], pictures: np.ndarray, count: int = 6) -> Figure:
    """The wrong predictions that each approach (its first seed) is surest of; `pictures` uint8 (N, h, w, 3)."""
    rows, title, surest = {}, {}, 0.0
    for approach, some in runs.items():
        probability, labels = _probability(some[0])
        wrong = np.flatnonzero(probability.argmax(1) != labels)
        chosen = wrong[np.argsort(-probability.max(1)[wrong], kind="stable")][:count]
        rows[NAMES[approach]] = chosen
        title[NAMES[approach]] = [_sure(some[0], index) for index in chosen]
        surest = max(surest, float(probability.max(1)[chosen].max(initial=0)))
    return _gallery(
        "fig-mistakes", rows, title, pictures,
        f"The mistakes each approach is surest of (seed {runs['linear_probe'][0].seed}): the true class, what was "
        f"predicted, and with which confidence. The surest has {percent(surest)}."
        if surest else "Neither approach makes a mistake on the test images.",
    )  # fmt: skip


def disagreements(runs: Mapping[str, Sequence[Run]], pictures: np.ndarray, count: int = 6) -> Figure:
    """Test images that only one approach gets right (first seeds), those first on which the two differ most."""
    (probe, labels), (tuned, _) = (_probability(some[0]) for some in runs.values())
    at = np.arange(len(labels))
    lead = tuned[at, labels] - probe[at, labels]
    only = {a: (p.argmax(1) == labels) & (q.argmax(1) != labels) for a, p, q in (
        ("linear_probe", probe, tuned), ("full_finetune", tuned, probe))}  # fmt: skip
    rows, title = {}, {}
    for approach, sign in (("linear_probe", 1), ("full_finetune", -1)):
        found = np.flatnonzero(only[approach])
        name = f"only {NAMES[approach]}"
        rows[name] = found[np.argsort(sign * lead[found], kind="stable")][:count]
        other = next(runs[a][0] for a in runs if a != approach)
        title[name] = [_sure(other, index) for index in rows[name]]
    counts = [int(only[approach].sum()) for approach in ("linear_probe", "full_finetune")]
    return _gallery(
        "fig-disagreements", rows, title, pictures,
        f"Test images that only one approach gets right (seed {runs['linear_probe'][0].seed}; {counts[0]:,} only the "
        f"linear probe, {counts[1]:,} only full fine-tuning): the true class, and what the other one said.",
    )  # fmt: skip


def filters(run: Run) -> Figure:
    """The 64 filters of the first layer before and after full fine-tuning, each stretched to its own range."""
    arrays = run.predictions()
    pair = [arrays["filters_before"], arrays["filters_after"]]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, WIDTH / 2))
        for axis, kernels, title in zip(axes, pair, ("pretrained", "fine-tuned"), strict=True):
            low, high = (bound((1, 2, 3), keepdims=True) for bound in (kernels.min, kernels.max))
            tiles = ((kernels - low) / np.maximum(high - low, 1e-12)).transpose(0, 2, 3, 1)
            framed = np.pad(tiles, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1.0)
            side = framed.shape[1]
            sheet = framed.reshape(8, 8, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(8 * side, 8 * side, 3)
            axis.imshow(sheet, interpolation="nearest")
            axis.set_title(title)
            axis.axis("off")
    change = filter_change(run)
    return _finish(
        fig,
        "fig-filters",
        "The first layer's 64 filters, each stretched to its own range of colours. "
        f"Fine-tuning moved them by {percent(change)} of their length.",
        f"Two grids of 64 small colour patterns, edges and blobs; they differ by {percent(change)}.",
    )


def filter_change(run: Run) -> float:
    """Length of what fine-tuning added to the first layer's weights, as a fraction of their length before."""
    arrays = run.predictions()
    before = arrays["filters_before"].astype(float)
    return float(np.linalg.norm(arrays["filters_after"] - before) / np.linalg.norm(before))


def _probability(run: Run) -> tuple[np.ndarray, np.ndarray]:
    arrays = run.predictions()
    return softmax(arrays["test_logits"].astype(float), axis=1), arrays["test_labels"]


def _sure(run: Run, index: int) -> tuple[str, str]:
    """(true class, what was predicted and how surely) of a test image."""
    probability, labels = _probability(run)
    guess = int(probability[index].argmax())
    return run.classes[labels[index]], f"{_short(run.classes[guess])}, {100 * probability[index, guess]:.0f} %"


def _gallery(
    label: str, rows: Mapping[str, np.ndarray], titles: Mapping[str, list[tuple[str, str]]], pictures: np.ndarray,
    caption: str,
) -> Figure:  # fmt: skip
    """Pictures in named rows, each with its true class above it and what was said below."""
    across = max(1, max(map(len, rows.values())))
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        fig, axes = plt.subplots(len(rows), across, figsize=(WIDTH, len(rows) * (WIDTH / max(across, 6) + 0.5)))
        axes = np.asarray(axes).reshape(len(rows), across)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        for line, (name, found) in zip(axes, rows.items(), strict=True):
            line[0].set_ylabel(name if len(found) else f"{name}: none")
            for axis, index, (true, said) in zip(line, found, titles[name], strict=False):
                axis.imshow(pictures[index])
                axis.set_title(_short(true), fontsize=8, loc="center")
                axis.set_xlabel(said, fontsize=7)
    listed = [f"{true} as {said}" for some in titles.values() for true, said in some]
    return _finish(fig, label, caption, "Pictures: " + "; ".join(listed) if listed else "No such picture.")


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
