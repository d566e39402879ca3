"""Runs -> charts: lines, points with intervals, matrices."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure as Drawing

from report_lib.config import APPROACHES
from report_lib.evidence import Comparison, comparisons, measures
from report_lib.evidence.measures import accuracy, mean_of, the
from report_lib.evidence.stats import Difference, Estimate
from report_lib.page.numbers import capital, listed, methods, percent, points, rate, two_figures
from report_lib.page.parts import Figure
from report_lib.page.style import PANEL, WIDTH, draw_seeds, drawn, name_ends, short_names, styled
from report_lib.page.words import judge
from report_lib.runs import Runs, Study

DOTS: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 3, "markeredgewidth": 0}
FEW = 20  # classes that can be named beside a matrix
STEPS = {"accuracy": 20, "loss": 0.5}  # at which an axis ends, so that two approaches can be read side by side


def _reach(estimates: Sequence[Estimate | Difference]) -> list[list[float]]:
    """How far the intervals reach below and above their means, in percent, as matplotlib wants it."""
    return [[100 * (e.mean - e.low) for e in estimates], [100 * (e.high - e.mean) for e in estimates]]


def _title(runs: Runs) -> str:
    return capital(APPROACHES[runs[0].approach].name)


def _label(kind: str, runs: Runs) -> str:
    return f"fig-{kind}-{runs[0].approach.replace('_', '-')}"


def _over_epochs(title: str) -> tuple[Drawing, plt.Axes]:
    """A drawing of what changes from epoch to epoch."""
    fig, axis = plt.subplots(figsize=(PANEL, 1.5))
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    return fig, axis


def curves(runs: Runs) -> Figure:
    """Loss and accuracy over the epochs of one approach; each seed thin, their mean strong."""
    approach = APPROACHES[runs[0].approach]
    with styled():
        drawings, (loss, right) = zip(
            *map(_over_epochs, ("Loss, nats per sample", "Validation accuracy, %")), strict=True
        )
        lines = {"training": ("train_loss", ":"), "validation": ("validation_loss", "-")}
        ends = {name: (draw_seeds(loss, runs, *kind), approach.colour) for name, kind in lines.items()}
        draw_seeds(right, runs, "validation_accuracy", scale=100)
        for run in runs:
            place = run.info["selected_epoch"], 100 * run.info["validation_accuracy"]
            right.plot(
                *place, marker=approach.marker, color=approach.colour, markeredgecolor="black", zorder=3, clip_on=False
            )
        loss.set(ylim=(0, _stepped(loss, "loss")[1]))
        right.set(ylim=_stepped(right, "accuracy"))
        name_ends(loss, ends)
        for axis in (loss, right):
            axis.margins(x=0.02)
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds (thin) and their mean (strong)"
    start, end = (np.mean([run.epochs["validation_accuracy"].iloc[at] for run in runs]) for at in (0, -1))
    return drawn(
        drawings,
        _label("curves", runs),
        f"{_title(runs)}: loss and validation accuracy after each epoch, {seeds}. "
        + ("The outlined marker is the selected epoch." if len(runs) == 1 else "Outlined: each seed’s selected epoch."),
        f"Two line charts over {len(runs[0].epochs)} epochs. Validation accuracy of the mean goes from "
        f"{percent(start)} to {percent(end)}.",
    )


def _stepped(axis: plt.Axes, name: str) -> tuple[float, float]:
    """The steps below and above all that an axis shows; an accuracy ends at 100."""
    step, shown, most = STEPS[name], axis.dataLim, 100 if name == "accuracy" else np.inf
    low = min(step * np.floor(shown.y0 / step), most - step)
    return float(low), float(min(max(step * np.ceil(shown.y1 / step), low + step), most))


def confusion(*of: Runs) -> Figure:
    """Share of each true class (row) predicted as each class (column), test images, all seeds together; a matrix for
    each approach."""
    classes, drawings = of[0][0].classes, []
    wide = min(PANEL if len(of) > 1 else WIDTH, 0.95 + 0.15 * len(classes))
    with styled(axes_grid=False):
        for runs in of:
            fig, axis = plt.subplots(figsize=(wide, wide))
            _matrix(axis, runs, 72 * (wide - 0.8) / len(classes))
            axis.set_title(_title(runs) if len(of) > 1 else "")
            drawings.append(fig)
    commonest = {APPROACHES[runs[0].approach].name: _commonest_mistake(runs) for runs in of}
    sentence = "; ".join(f"{what} ({name})" if len(of) > 1 else what for name, what in commonest.items())
    who = f"{_title(of[0])}: share" if len(of) == 1 else f"Preset {of[0][0].preset}: share"
    numbers = "in %, blank where it rounds to none" if len(classes) <= FEW else "dark where it is large"
    return drawn(
        drawings,
        _label("confusion", of[0]) if len(of) == 1 else "fig-confusion",
        f"{who} of each true class (rows) by predicted class (columns), {numbers}. The commonest mistake: {sentence}.",
        f"Confusion matrix of {len(classes)} classes. The commonest mistake: {sentence}.",
    )


def _commonest_mistake(runs: Runs) -> str:
    count, classes = measures.confusion(runs), runs[0].classes
    off = count - np.diag(count.diagonal())
    true, predicted = np.unravel_index(off.argmax(), off.shape)
    if not off[true, predicted]:
        return "none, no test image is misclassified"
    share = count[true, predicted] / count[true].sum()
    return f"{classes[true]} taken for {classes[predicted]}, {percent(share)}"


def _matrix(axis: plt.Axes, runs: Runs, cell: float) -> None:
    """One confusion matrix, whose cells are `cell` points wide."""
    classes, count = runs[0].classes, measures.confusion(runs)
    share = count / count.sum(1, keepdims=True)
    if len(classes) > FEW:  # too many for names; a picture of one pixel a pair is as sharp and far smaller
        picture = axis.imshow(share, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        axis.figure.colorbar(picture, ax=axis, shrink=0.7, label="share of the true class")
        return
    axis.pcolormesh(share, cmap="Greys", vmin=0, vmax=1, edgecolor="none")  # vectors, sharp at any size
    axis.set(aspect="equal", ylim=(len(classes), 0))
    middles, names, small = np.arange(len(classes)) + 0.5, short_names(classes, 16), min(8.0, 0.5 * cell)
    axis.set_xticks(middles, names, fontsize=max(5.5, small))
    if max(map(len, names)) > 3:
        plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(middles, names, fontsize=max(5.5, small))
    axis.tick_params(length=0, pad=2)
    for row, column in np.argwhere(np.round(100 * share)):
        axis.text(column + 0.5, row + 0.5, f"{100 * share[row, column]:.0f}", ha="center", va="center",
                  color="white" if share[row, column] > 0.5 else "black", fontsize=small)  # fmt: skip


def validation(runs: Mapping[str, Runs]) -> Figure:
    """Loss and accuracy of every approach on the images that select an epoch, over the epochs."""
    first = next(iter(runs.values()))
    part = capital(judge(first))
    with styled():
        titles = f"{part} loss, nats per sample", f"{part} accuracy, %"
        drawings, (loss, right) = zip(*map(_over_epochs, titles), strict=True)
        for axis, column, scale in ((loss, "validation_loss", 1), (right, "validation_accuracy", 100)):
            ends = {APPROACHES[a].name: (draw_seeds(axis, r, column, scale=scale), APPROACHES[a].colour)
                    for a, r in runs.items()}  # fmt: skip
            axis.set(ylim=(0, _stepped(axis, "loss")[1]) if axis is loss else _stepped(axis, "accuracy"))
            name_ends(axis, ends)
    lowest = {a: np.mean([run.epochs["validation_loss"].min() for run in r]) for a, r in runs.items()}
    best = min(lowest, key=lowest.__getitem__)
    return drawn(
        drawings,
        "fig-validation",
        f"Preset {first[0].preset}: loss and accuracy on the {judge(first)} images after each epoch.",
        f"Two line charts of {len(runs)} approaches; {the(runs[best])} reaches the lowest loss.",
    )


def accuracy_against_time(study: Study) -> Figure:
    """Test accuracy with its interval against training seconds (logarithmic), a point per approach and preset; hollow
    where the test images selected the epoch."""
    shown = study.of_presets
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH, 2.5))
        for runs in shown:
            look, estimate = APPROACHES[runs[0].approach], accuracy(runs)
            colour: dict[str, Any] = {"color": look.colour}
            inside: dict[str, Any] = {"markerfacecolor": "white"} if runs[0].info["selected_on"] == "test" else {}
            axis.errorbar(mean_of(runs, "train_seconds"), 100 * estimate.mean, yerr=_reach([estimate]), capsize=3,
                          fmt=look.marker, **colour, **inside)  # fmt: skip
            if len(runs) > 1:
                for run, right in zip(runs, 100 * measures.right(runs).mean(1), strict=True):  # tied to their mean
                    to = [mean_of(runs, "train_seconds"), run.info["train_seconds"]], [100 * estimate.mean, right]
                    axis.plot(*to, linewidth=0.6, alpha=0.7, **colour)
                    axis.plot(to[0][1], right, **DOTS, **colour)
        axis.set(xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.margins(x=0.5, y=0.3)
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, -4), min(high, 104))
        _name_points(axis, shown)
    means = ", means of all seeds and, as dots, the seeds" * any(len(runs) > 1 for runs in shown)
    hollow = " Hollow: the test images selected the epoch." * any(r[0].info["selected_on"] == "test" for r in shown)
    return drawn(
        fig,
        "fig-accuracy-time",
        f"Test accuracy against training time{means}, with 95 % intervals ({methods(map(accuracy, shown))}).{hollow}",
        "; ".join(f"{the(runs)}, {runs[0].preset}: {rate(accuracy(runs))}" for runs in shown),
    )


def _name_points(axis: plt.Axes, shown: Sequence[Runs]) -> None:
    """Names presets beside their points: those of the fastest approach on the left, of others on the right, one below
    the other under the approach's name, each tied to its point by a thin line."""
    gap = 0.085 * (axis.get_ylim()[1] - axis.get_ylim()[0])
    of: dict[str, list[tuple[float, float, str]]] = {}
    for runs in shown:
        point = (100 * accuracy(runs).mean, mean_of(runs, "train_seconds"), runs[0].preset)
        of.setdefault(runs[0].approach, []).append(point)
    fastest = min(of, key=lambda name: np.mean([x for _, x, _ in of[name]]))
    taken = -np.inf  # the height up to which names stand on the right
    for name in sorted(of, key=lambda name: min(of[name])):
        left, mine = name == fastest, sorted(of[name])
        heights = [y for y, *_ in mine]
        if min(np.diff(heights), default=gap) < gap:  # too close together: evenly around their middle
            middle = float(np.mean(heights))
            heights = [middle + gap * (place - (len(mine) - 1) / 2) for place in range(len(mine))]
        edge = (min if left else max)(x for _, x, _ in mine) * (0.75 if left else 1.3)
        if not left:
            heights = [height + max(0.0, taken + gap - heights[0]) for height in heights]
            taken = heights[-1] + 1.1 * gap
        look: dict[str, Any] = {"va": "center", "ha": "right" if left else "left", "color": APPROACHES[name].colour}
        axis.text(edge, heights[-1] + 1.1 * gap, APPROACHES[name].name, fontsize=10, **look)
        for (y, x, preset), height in zip(mine, heights, strict=True):
            tie = {"arrowstyle": "-", "linewidth": 0.4, "color": look["color"], "shrinkA": 1, "relpos": (left, 0.5)}
            axis.annotate(preset, (x, y), (edge, height), arrowprops=tie, **look)


def budgets(study: Study) -> Figure | None:
    """Test accuracy against the number of labelled images per class; None where the study has no budgets."""
    curve = measures.budget_curve(study)
    if not curve:
        return None
    names, gains, every = list(study.approaches), [], [accuracy(r) for _, runs in curve for r in runs.values()]
    with styled():
        fig, axis = plt.subplots(figsize=(WIDTH, 2.2))
        ends: dict[str, tuple[float, str]] = {}
        for name in names:
            look, dodge = APPROACHES[name], 1 + 0.08 * (names.index(name) - (len(names) - 1) / 2)
            mine = [(labels, runs[name]) for labels, runs in curve if name in runs]
            estimates = [accuracy(runs) for _, runs in mine]
            for labels, runs in mine:
                if len(runs) > 1:
                    heights = 100 * measures.right(runs).mean(1)  # beside the interval, where they can be seen
                    axis.plot([labels * dodge * (1.07 if dodge >= 1 else 0.93)] * len(runs), heights, **DOTS,
                              color=look.colour)  # fmt: skip
            axis.errorbar([labels * dodge for labels, _ in mine], [100 * e.mean for e in estimates],
                          yerr=_reach(estimates), fmt=f"{look.marker}-", capsize=3, color=look.colour)  # fmt: skip
            ends[look.name] = (100 * estimates[-1].mean, look.colour)
            gains.append(f"{the(mine[0][1])} goes from {rate(estimates[0])} to {rate(estimates[-1])}")
        axis.set(xlabel="labelled images per class", ylabel="test accuracy, %", xscale="log")
        axis.set_xticks([labels for labels, _ in curve], [f"{labels:,.0f}" for labels, _ in curve])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        name_ends(axis, ends, 8)
    dots = ", seeds as dots" if len(study.best[names[0]]) > 1 else ""
    span = f"From {curve[0][0]:,.0f} to {curve[-1][0]:,.0f} labels per class {listed(gains)}."
    return drawn(
        fig,
        "fig-budgets",
        "Test accuracy by the number of labelled images per class, those for validation included; 95 % intervals "
        f"({methods(every)}){dots}.",
        f"{len(names)} lines. {span}",
    )


def reliability(runs: Mapping[str, Runs]) -> Figure | None:
    """Accuracy by confidence on the test images, as the networks are and temperature-scaled; all seeds together.

    None where runs held out no validation images to fit a temperature on.
    """
    calibrations = {approach: measures.calibration(r) for approach, r in runs.items()}
    if None in calibrations.values():
        return None
    with styled():
        drawings, axes = zip(*(plt.subplots(figsize=(2.3, 1.7)) for _ in range(2)), strict=True)
        for scaled, axis in enumerate(axes):
            axis.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
            for approach, r in runs.items():
                bins, look = measures.reliability(r, bool(scaled)), APPROACHES[approach]
                enough = bins.count >= max(10, bins.count.sum() / 300)  # a bin of a handful says nothing
                axis.plot(100 * bins.confidence[enough], 100 * bins.accuracy[enough], f"{look.marker}-", markersize=3.5,
                          color=look.colour, label=look.name)  # fmt: skip
            axis.set(title="Temperature-scaled" if scaled else "As trained", xlabel="confidence, %",
                     ylabel="accuracy, %", xlim=(-4, 104), ylim=(-4, 104))  # fmt: skip
        axes[1].legend(loc="upper left", fontsize=8, borderaxespad=0, handlelength=1.5)
    errors = [f"{the(runs[a])} {percent(c['ece'])}, scaled {percent(c['ece_scaled'])}" for a, c in calibrations.items()]
    return drawn(
        drawings,
        "fig-reliability",
        f"Reliability, preset {next(iter(runs.values()))[0].preset}: how often test predictions of a confidence are "
        "right, in bins of equal width, all seeds together. On the diagonal a network is right as often as it says; "
        f"below it, too sure of itself.",
        f"Two line charts of accuracy against confidence. Calibration error: {'; '.join(errors)}.",
    )


def classes(runs: Mapping[str, Runs], beside: Collection[Mapping[str, Runs]] = (), most: int = 20) -> Figure | None:
    """For each class, how much more accurate each approach is than the first, paired, with intervals; of many classes,
    those that differ most. Figures of the runs `beside` have the same classes in one order, and the same axis. None for
    a single approach."""
    pairs: list[Comparison] = comparisons(runs)
    if not pairs:
        return None
    names, alike = pairs[0].a[0].classes, [pair for each in beside or (runs,) for pair in comparisons(each)]
    gains = np.array([[difference.mean for difference in pair.classes] for pair in alike])
    shown = sorted(np.argsort(-np.abs(gains).max(0), kind="stable")[:most], key=lambda label: gains[:, label].mean())
    ends = [100 * end for pair in alike for label in shown for c in [pair.classes[label]] for end in (c.low, c.high)]
    labels = short_names(names, 28)
    with styled():
        longest = max(len(labels[label]) for label in shown)
        named = 0.17 * len(pairs) * (len(pairs) > 1)  # inches of a legend
        fig, axis = plt.subplots(figsize=(min(WIDTH, 1.9 + 0.065 * longest), 0.65 + named + 0.135 * len(shown)))
        axis.axvline(0, color="#888888", linewidth=0.8)
        for offset, pair in zip(np.linspace(-0.12, 0.12, len(pairs)) * (len(pairs) > 1), pairs, strict=True):
            look, chosen = APPROACHES[pair.b[0].approach], [pair.classes[label] for label in shown]
            axis.errorbar([100 * c.mean for c in chosen], np.arange(len(shown)) + offset, xerr=_reach(chosen),
                          fmt=look.marker, markersize=4, color=look.colour, label=look.name, linewidth=1)  # fmt: skip
        axis.set_yticks(range(len(shown)), [labels[label] for label in shown])
        margin = 0.04 * (max(ends) - min(ends)) or 1.0
        axis.set(xlabel=f"accuracy minus that of\n{the(pairs[0].a)}, points",
                 xlim=(min(ends) - margin, max(ends) + margin))  # fmt: skip
        if len(pairs) > 1:
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    few = "" if len(shown) == len(names) else f" The {len(shown)} of {len(names)} classes that differ most."
    intervals = methods(difference for pair in pairs for difference in pair.classes)
    least, greatest = (f"{names[at]} ({points(pairs[-1].classes[at])})" for at in (shown[0], shown[-1]))
    return drawn(
        fig,
        "fig-classes",
        f"Preset {pairs[0].b[0].preset}: test accuracy by class, "
        f"{listed(the(pair.b) for pair in pairs)} minus {the(pairs[0].a)}, with 95 % intervals ({intervals}).{few}",
        f"Dot plot of {len(shown)} classes, from {least} to {greatest}.",
    )


def layers(study: Study) -> Figure | None:
    """How far training moved each layer below the head, presented and best presets; None where all are frozen or
    were random."""
    found = {runs: moved for runs in measures.shown(study) if (moved := measures.moved(runs))}
    if not found:
        return None
    names = list(dict.fromkeys(name for moved in found.values() for name in moved))
    tall = 0.8 / len(found)
    with styled(axes_grid=False):
        fig, axis = plt.subplots(figsize=(WIDTH, 0.7 + max(0.18, 0.13 * len(found)) * len(names)))
        for at, (runs, moved) in enumerate(found.items()):
            look = APPROACHES[runs[0].approach]
            earlier = sum(other[0].approach == runs[0].approach for other in list(found)[:at])
            inside = "none" if earlier else look.colour
            bars = axis.barh([names.index(name) + (at - (len(found) - 1) / 2) * tall for name in moved],
                             [100 * share for share in moved.values()], 0.9 * tall, edgecolor=look.colour,
                             facecolor=inside, label=f"{look.name}, {runs[0].preset}")  # fmt: skip
            axis.bar_label(bars, [two_figures(share) for share in moved.values()], padding=2, fontsize=7)
        axis.set_yticks(range(len(names)), short_names(names, 28))
        axis.set(xlabel="change, % of the length of the layer’s weights", ylim=(len(names) - 0.4, -0.6))
        axis.margins(x=0.1)
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    each = [f"{the(runs)}, {runs[0].preset}: "
            + listed(f"{name} moved by {two_figures(share)}" for name, share in moved.items())
            for runs, moved in found.items()]  # fmt: skip
    return drawn(
        fig,
        "fig-layers",
        "How far training moved each layer below the head: the length of what was added to its weights, in percent of "
        f"their length before, {'mean of the seeds' if len(next(iter(found))) > 1 else 'one seed'}.",
        f"Bar chart of {len(names)} layers. {'; '.join(each)}.",
    )
