"""Records -> charts. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from report_lib.document import Figure
from report_lib.formats import decimals, either, fixed, percent, rate
from report_lib.measures import (
    NAMES,
    accuracy_of,
    budget_points,
    calibration_of,
    classes_of,
    confusion_of,
    errors_of,
    reliability_of,
    right_of,
    seconds_of,
    the,
    training_seconds,
)
from report_lib.plan import Evidence
from report_lib.records import Run
from report_lib.style import COLOURS, MARKERS, SHADES, WIDTH, draw_seeds, drawn, name_ends, short, styled


def curves(runs: Sequence[Run]) -> Figure:
    """Loss and accuracy over the epochs of one approach; each seed thin, their mean strong."""
    approach, epochs = runs[0].approach, runs[0].epochs["epoch"]
    colour = COLOURS[approach]
    with styled():
        fig, (loss, accuracy) = plt.subplots(1, 2, figsize=(WIDTH, 2.5))
        lines = {"training": ("train_loss", ":"), "validation": ("validation_loss", "-")}
        ends = {name: (draw_seeds(loss, runs, *kind), colour) for name, kind in lines.items()}
        draw_seeds(accuracy, runs, "validation_accuracy", scale=100)
        for run in runs:
            at = run.info["selected_epoch"]
            height = 100 * run.info["validation_accuracy"]
            accuracy.plot(at, height, marker=MARKERS[approach], color=colour, markeredgecolor="black", zorder=3)
        loss.set(title="Loss, nats per sample", xlabel="epoch", ylim=(0, None))
        accuracy.set(title="Validation accuracy, %", xlabel="epoch")
        name_ends(loss, ends)
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
            axis.margins(x=0.02)
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds (thin) and their mean (strong)"
    return drawn(
        fig,
        f"fig-curves-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: loss and validation accuracy after each epoch, {seeds}. "
        + ("The outlined marker is the selected epoch." if len(runs) == 1 else "Outlined: each seed’s selected epoch."),
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
    with styled(axes_grid=False):
        size = min(WIDTH * 0.9, 1.4 + 0.25 * len(classes))
        fig, axis = plt.subplots(figsize=(size, size * 0.86))
        if few:
            axis.pcolormesh(share, cmap="Greys", vmin=0, vmax=1, edgecolor="none")  # vectors, sharp at any size
            axis.set(aspect="equal", ylim=(len(classes), 0))
            middles = np.arange(len(classes)) + 0.5
            names = [short(name, 20) for name in classes]
            axis.set_xticks(middles, names)
            if max(map(len, names)) > 3:
                plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
            axis.set_yticks(middles, names)
            axis.tick_params(length=0)
            for row, column in np.ndindex(share.shape):
                if round(100 * share[row, column]):
                    shade = "white" if share[row, column] > 0.5 else "black"
                    axis.text(column + 0.5, row + 0.5, f"{100 * share[row, column]:.0f}", ha="center", va="center",
                              color=shade, fontsize=7)  # fmt: skip
        else:  # too many for names; a picture of one pixel a pair is as sharp and far smaller
            picture = axis.imshow(share, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
            fig.colorbar(picture, ax=axis, shrink=0.7, label="share of the true class")
        axis.set(xlabel="predicted class", ylabel="true class")
    off = count - np.diag(count.diagonal())
    worst = np.unravel_index(off.argmax(), off.shape)
    sentence = "No test image is misclassified"
    if off[worst]:
        taken = f"{classes[worst[0]]} taken for {classes[worst[1]]}"
        sentence = f"The commonest mistake is {taken} ({percent(share[worst])} of that class)"
    blank = "; blank where it rounds to none" if few else ""
    return drawn(
        fig,
        f"fig-confusion-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: share of each true class, in %, by predicted class{blank}. {sentence}.",
        f"Confusion matrix of {len(classes)} classes. {sentence}.",
    )


def validation_losses(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Validation loss of both approaches over the epochs."""
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH * 0.62, 2.4))
        ends = {NAMES[a]: (draw_seeds(axis, some, "validation_loss"), COLOURS[a]) for a, some in runs.items()}
        axis.set(xlabel="epoch", ylabel="validation loss, nats", ylim=(0, None))
        name_ends(axis, ends)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    lowest = {a: np.mean([run.epochs["validation_loss"].min() for run in some]) for a, some in runs.items()}
    best = min(lowest, key=lowest.__getitem__)
    digits = decimals(errors_of(runs[best])[1])
    return drawn(
        fig,
        "fig-validation-loss",
        f"Validation loss after each epoch. The lowest, {lowest[best]:.{digits}f} nats, is that of {the(runs[best])}.",
        f"Line chart of two approaches; {NAMES[best]} reaches the lower validation loss.",
    )


def accuracy_against_time(evidence: Evidence) -> Figure:
    """Test accuracy with its interval against training seconds (logarithmic), one point an approach and recipe."""
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 2.8))
        said, points, honest = [], [], []
        methods: list[str] = []
        for approach in NAMES:
            for recipe in evidence.recipes:
                some = evidence.runs[approach][recipe]
                estimate = accuracy_of(some)
                seconds = training_seconds(some)[0]
                look: dict[str, Any] = {"color": COLOURS[approach], "alpha": SHADES.get(recipe, 0.85)}
                reach = [[100 * (estimate.mean - estimate.low)], [100 * (estimate.high - estimate.mean)]]
                axis.errorbar(seconds, 100 * estimate.mean, yerr=reach, fmt=MARKERS[approach], capsize=3, **look)
                if len(some) > 1:
                    axis.plot([seconds_of(run) for run in some], [100 * run.info["test_accuracy"] for run in some], ".",
                              markersize=3, **look)  # fmt: skip
                methods.append(estimate.method)
                points.append((approach, recipe, seconds, 100 * estimate.mean))
                if some[0].info["selected_on"] == "validation":
                    honest.append(points[-1])
                said.append(f"{NAMES[approach]}, {recipe}: {rate(estimate)}")
        axis.set(xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.margins(x=0.5, y=0.3)
        _name_points(axis, points)
    best, recipe, its, _ = max(honest, key=lambda point: point[3])
    other, theirs = next((a, x) for a, r, x, _ in honest if r == recipe and a != best)
    factor = max(its, theirs) / min(its, theirs)
    apart = f"{fixed(factor, 0 if factor > 10 else 1)} times as {'long' if its > theirs else 'fast'} as"
    return drawn(
        fig,
        "fig-accuracy-time",
        f"Test accuracy against training time, with 95 % intervals ({either(methods)})"
        + (f"; the {len(some)} seeds as dots. " if len(some) > 1 else ". ")
        + "Of the recipes that select on validation images, the highest mean accuracy is that of "
        f"{the(evidence.runs[best][recipe])} by the recipe {recipe}, which trains {apart} "
        f"{the(evidence.runs[other][recipe])} by the same recipe.",
        "; ".join(said),
    )


def _name_points(axis: plt.Axes, points: Sequence[tuple[str, str, float, float]]) -> None:
    """Names (approach, recipe, x, y) beside their points: the faster approach's on the left, the other's on the right,
    one below the other under the approach's name, each tied to its point by a thin line."""
    gap = 0.085 * (axis.get_ylim()[1] - axis.get_ylim()[0])
    times = {approach: np.mean([x for a, _, x, _ in points if a == approach]) for approach in NAMES}
    for approach, colour in COLOURS.items():
        left = times[approach] == min(times.values())
        mine = sorted((p for p in points if p[0] == approach), key=lambda point: point[3])
        edge = (min if left else max)(x for _, _, x, _ in mine) * (0.75 if left else 1.3)
        heights = [y for *_, y in mine]
        if min(np.diff(heights), default=gap) < gap:  # too close together: evenly around their middle
            middle = float(np.mean(heights))
            heights = [middle + gap * (place - (len(mine) - 1) / 2) for place in range(len(mine))]
        look: dict[str, Any] = {"va": "center", "ha": "right" if left else "left", "color": colour}
        axis.text(edge, heights[-1] + 1.1 * gap, NAMES[approach], fontsize=10, **look)
        for (_, recipe, x, y), height in zip(mine, heights, strict=True):
            tie = {"arrowstyle": "-", "linewidth": 0.4, "color": colour, "shrinkA": 1, "relpos": (left, 0.5)}
            axis.annotate(recipe, (x, y), (edge, height), arrowprops=tie, **look)


def budgets(evidence: Evidence) -> Figure | None:
    """Test accuracy of both approaches against the number of labelled images a class; None without a curve."""
    points = budget_points(evidence)
    if len(points["linear_probe"]) == 1:
        return None
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
        ends: dict[str, tuple[float, str]] = {}
        methods: list[str] = []
        for dodge, (approach, some) in zip((0.96, 1.04), points.items(), strict=True):
            estimates = [accuracy_of(runs) for _, runs in some]
            methods += [estimate.method for estimate in estimates]
            labels = [n for n, _ in some]
            for at, runs in some:
                if len(runs) > 1:
                    heights = [100 * run.info["test_accuracy"] for run in runs]
                    axis.plot([at * dodge] * len(runs), heights, ".", markersize=3, color=COLOURS[approach], alpha=0.6)
            means = [100 * estimate.mean for estimate in estimates]
            reach = [[100 * (e.mean - e.low) for e in estimates], [100 * (e.high - e.mean) for e in estimates]]
            at_labels = [n * dodge for n in labels]
            axis.errorbar(at_labels, means, yerr=reach, fmt=f"{MARKERS[approach]}-", capsize=3, color=COLOURS[approach])
            ends[NAMES[approach]] = (means[-1], COLOURS[approach])
        axis.set(xlabel="labelled images a class", ylabel="test accuracy, %", xscale="log", ylim=(0, None))
        axis.set_xticks(labels, [f"{n:,.0f}" for n in labels])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        name_ends(axis, ends, 8)
    first = {NAMES[a]: rate(accuracy_of(some[0][1])) for a, some in points.items()}
    gain = [accuracy_of(some[-1][1]).mean - accuracy_of(some[0][1]).mean for some in points.values()]
    lead = (
        f"From {labels[0]:,.0f} to {labels[-1]:,.0f} labels a class the linear probe gains {100 * gain[0]:.0f} "
        f"points, full fine-tuning {100 * gain[1]:.0f}."
    )
    return drawn(
        fig,
        "fig-budgets",
        "Test accuracy by the number of labelled images a class, those for validation included; 95 % intervals "
        f"({either(methods)}){', seeds as dots' if len(runs) > 1 else ''}. {lead}",
        f"Two lines. With {labels[0]:,.0f} labels a class: "
        + ", ".join(f"{name} {rate}" for name, rate in first.items()),
    )


def reliability(runs: Mapping[str, Sequence[Run]]) -> Figure | None:
    """Accuracy by confidence on the test images, as the networks are and temperature-scaled; all seeds together.

    None where runs held out no validation images to fit a temperature on.
    """
    if any(run.info["selected_on"] == "test" for some in runs.values() for run in some):
        return None
    with styled():
        fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharey=True)
        for scaled, axis in enumerate(axes):
            axis.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
            for approach, some in runs.items():
                bins = reliability_of(some, bool(scaled))
                enough = bins.count >= 10  # a bin of a handful says nothing
                axis.plot(100 * bins.confidence[enough], 100 * bins.accuracy[enough], f"{MARKERS[approach]}-",
                          markersize=3.5, color=COLOURS[approach], label=NAMES[approach])  # fmt: skip
            axis.set(title="temperature-scaled" if scaled else "as trained", xlabel="confidence, %")
        axes[0].set(ylabel="accuracy, %")
        axes[1].legend(loc="lower right")
    errors = {approach: calibration_of(some) for approach, some in runs.items()}
    off = [f"{percent(found['ece'])} ({the(runs[approach])})" for approach, found in errors.items()]
    return drawn(
        fig,
        "fig-reliability",
        "Reliability: how often test predictions of a confidence are right, in bins of equal width, all seeds "
        "together. On the diagonal a network is as often right as it says; below it, it is too sure of itself. As "
        f"trained, it is off by {' and by '.join(off)} on average.",
        "; ".join(f"{NAMES[a]}: calibration error {percent(e['ece'])}, scaled {percent(e['ece_scaled'])}"
                  for a, e in errors.items()),
    )  # fmt: skip


def classes(runs: Mapping[str, Sequence[Run]], most: int = 20) -> Figure:
    """Accuracy on each class with its interval, both approaches; of many classes, those that differ most."""
    names = runs["linear_probe"][0].classes
    estimates = {approach: classes_of(some) for approach, some in runs.items()}
    gain = np.array([b.mean - a.mean for a, b in zip(*estimates.values(), strict=True)])
    shown = sorted(np.argsort(-np.abs(gain), kind="stable")[:most], key=lambda label: gain[label])
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH * 0.75, 0.5 + 0.24 * len(shown)))
        for offset, (approach, some) in zip((-0.12, 0.12), estimates.items(), strict=True):
            means = np.array([100 * some[label].mean for label in shown])
            reach = [[100 * (some[label].mean - some[label].low) for label in shown],
                     [100 * (some[label].high - some[label].mean) for label in shown]]  # fmt: skip
            if len(runs[approach]) > 1:
                right, labels = right_of(runs[approach]), runs[approach][0].predictions()["test_labels"]
                for row, label in enumerate(shown):
                    seeds = 100 * right[:, labels == label].mean(1)
                    axis.plot(seeds, [row + offset] * len(seeds), ".", markersize=3, color=COLOURS[approach], alpha=0.6)
            axis.errorbar(means, np.arange(len(shown)) + offset, xerr=reach, fmt=MARKERS[approach], markersize=4,
                          color=COLOURS[approach], label=NAMES[approach], linewidth=1)  # fmt: skip
        axis.set_yticks(range(len(shown)), [short(names[label], 28) for label in shown])
        axis.set(xlabel="test accuracy, %")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    few = "" if len(shown) == len(names) else f" The {len(shown)} of {len(names)} classes that differ most."
    dots = ", seeds as dots" if len(runs["linear_probe"]) > 1 else ""
    methods = either(one.method for some in estimates.values() for one in some)
    return drawn(
        fig,
        "fig-classes",
        f"Accuracy on the test images of each class, with 95 % intervals ({methods}){dots}, ordered by "
        f"what fine-tuning gains.{few}",
        f"Dot plot of {len(shown)} classes; fine-tuning gains {100 * gain.min():+.1f} to {100 * gain.max():+.1f} "
        "percentage points.",
    )
