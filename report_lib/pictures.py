"""Records and images -> figures made of pictures. Imports no torch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from report_lib import sources
from report_lib.document import Figure
from report_lib.formats import confidence, percent
from report_lib.measures import NAMES, Study, check_images, filter_change, probabilities, surest_mistakes, the
from report_lib.recipe import folder
from report_lib.records import Run
from report_lib.style import WIDTH, drawn, short, styled


def test_images(study: Study, data: str, image_size: int) -> np.ndarray:
    """The test images of the source `data`, uint8 (N, h, w, 3), as the cache holds them.

    Raises InputError if they are not those that the runs were tested on.
    """
    arrays, fingerprint = sources.read(data, image_size, folder("", "REPORT_CACHE", ".cache"))
    for runs in study.values():
        check_images(runs[0], fingerprint)
    return arrays.test


def samples(pictures: np.ndarray, labels: np.ndarray, classes: Sequence[str], per_class: int = 4) -> Figure:
    """The first images of up to ten classes; `pictures` uint8 (N, h, w, 3), `labels` (N,)."""
    shown = range(min(len(classes), 10))
    with styled():
        side = min(WIDTH / len(shown), 0.9)
        fig, axes = plt.subplots(per_class, len(shown), figsize=(side * len(shown), side * (per_class + 0.3)))
        axes = np.asarray(axes).reshape(per_class, len(shown))
        for axis in axes.flat:
            axis.axis("off")
        for column in shown:
            axes[0, column].set_title(short(classes[column], 13, 2), fontsize=7, loc="center")
            for row, index in enumerate(np.flatnonzero(labels == column)[:per_class]):
                axes[row, column].imshow(pictures[index])
    some = "classes" if len(shown) == len(classes) else f"first {len(shown)} of {len(classes)} classes"
    return drawn(
        fig,
        "fig-samples",
        f"Training images of the {some}, as stored, {pictures.shape[2]} × {pictures.shape[1]} pixels.",
        f"A grid of example images, one column for each of {len(shown)} classes.",
    )


def mistakes(runs: Mapping[str, Sequence[Run]], pictures: np.ndarray, count: int = 8) -> Figure:
    """The wrong predictions that each approach (its first seed) is surest of; `pictures` uint8 (N, h, w, 3)."""
    rows, title, surest = {}, {}, 0.0
    for approach, some in runs.items():
        chosen = surest_mistakes(some[0], count)
        rows[NAMES[approach]] = chosen
        title[NAMES[approach]] = _sure(some[0], chosen)
        surest = max(surest, float(probabilities(some[0])[0].max(1)[chosen].max(initial=0)))
    return _gallery(
        "fig-mistakes", rows, title, pictures,
        f"The mistakes each approach is surest of (seed {runs['linear_probe'][0].seed}): the true class, what was "
        f"predicted, and with which confidence. The surest has {confidence(surest, 1)}."
        if surest else "Neither approach makes a mistake on the test images.",
    )  # fmt: skip


def disagreements(runs: Mapping[str, Sequence[Run]], pictures: np.ndarray, count: int = 8) -> Figure:
    """Test images that only one approach gets right (first seeds), those first on which the two differ most."""
    (probe, labels), (tuned, _) = (probabilities(some[0]) for some in runs.values())
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
        title[name] = _sure(other, rows[name])
    counts = [int(only[approach].sum()) for approach in ("linear_probe", "full_finetune")]
    return _gallery(
        "fig-disagreements", rows, title, pictures,
        f"Test images that only one approach gets right (seed {runs['linear_probe'][0].seed}; {counts[0]:,} only the "
        f"linear probe, {counts[1]:,} only full fine-tuning): the true class, and what the other one said.",
    )  # fmt: skip


def neighbours(
    run: Run, rows: Sequence[tuple[int, Sequence[tuple[int, float]]]], test: np.ndarray, training: np.ndarray,
    labels: np.ndarray,
) -> Figure:  # fmt: skip
    """Test images, each before the training images that are nearest to it.

    `rows` has (test image, its (training image, similarity) pairs); `test` and `training` are uint8 (N, h, w, 3);
    `labels` (N,) are those of the training images.
    """
    across = 1 + max((len(near) for _, near in rows), default=1)
    size = WIDTH / across
    with styled(axes_grid=False):
        fig, axes = plt.subplots(max(1, len(rows)), across, figsize=(WIDTH, max(1, len(rows)) * (size + 0.55)))
        axes = np.asarray(axes).reshape(-1, across)
        for axis in axes.flat:
            axis.axis("off")
        for line, (at, near) in zip(axes, rows, strict=False):
            ((true, said),) = _sure(run, np.array([at]))
            line[0].imshow(test[at])
            line[0].set_title(f"{short(true, 12)}\nas {said}", fontsize=7, loc="center")
            for axis, (other, similarity) in zip(line[1:], near, strict=False):
                axis.imshow(training[other])
                axis.set_title(f"{short(run.classes[labels[other]], 12)}\n{similarity:.2f}", fontsize=7, loc="center")
    listed = [
        f"{run.classes[probabilities(run)[1][at]]}, nearest {', '.join(run.classes[labels[n]] for n, _ in near)}"
        for at, near in rows
    ]
    return drawn(
        fig,
        "fig-neighbours",
        f"The mistakes that {the([run])} (seed {run.seed}) is surest of, at the left with true class, what it "
        "was taken for and confidence, and the training images nearest to each in the pretrained trunk’s features, "
        "with class and cosine similarity.",
        "Rows of pictures: " + "; ".join(listed) if listed else "There are no mistakes.",
    )


def filters(run: Run) -> Figure:
    """The 64 filters of the first layer before and after full fine-tuning, each stretched to its own range."""
    arrays = run.predictions()
    pair = [arrays["filters_before"], arrays["filters_after"]]
    with styled(axes_grid=False):
        fig, axes = plt.subplots(1, 2, figsize=(0.7 * WIDTH, 0.37 * WIDTH))
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
    return drawn(
        fig,
        "fig-filters",
        "The first layer’s 64 filters, each stretched to its own range of colours. "
        f"Fine-tuning moved them by {percent(change)} of their length.",
        f"Two grids of 64 small coloured tiles, one a filter; from left to right they change by {percent(change)}.",
    )


def _sure(run: Run, indices: np.ndarray) -> list[tuple[str, str]]:
    """(true class, what was predicted and how surely) of some test images."""
    probability, labels = probabilities(run)
    said = zip(indices, probability[indices].argmax(1), probability[indices].max(1), strict=True)
    return [
        (run.classes[labels[at]], f"{short(run.classes[guess], 14)}\n{confidence(sure)}") for at, guess, sure in said
    ]


def _gallery(
    label: str, rows: Mapping[str, np.ndarray], titles: Mapping[str, list[tuple[str, str]]], pictures: np.ndarray,
    caption: str,
) -> Figure:  # fmt: skip
    """Pictures in named rows, each with its true class above it and what was said below."""
    across = max(1, max(map(len, rows.values())))
    with styled(axes_grid=False):
        fig, axes = plt.subplots(len(rows), across, figsize=(WIDTH, len(rows) * (WIDTH / max(across, 8) + 0.55)))
        axes = np.asarray(axes).reshape(len(rows), across)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        for line, (name, found) in zip(axes, rows.items(), strict=True):
            line[0].set_ylabel(name)
            if not len(found):
                line[0].text(0.5, 0.5, "none", ha="center", va="center", transform=line[0].transAxes)
            for axis, index, (true, said) in zip(line, found, titles[name], strict=False):
                axis.imshow(pictures[index])
                axis.set_title(short(true, 14, 2), fontsize=8, loc="center")
                axis.set_xlabel(said, fontsize=7)
    listed = [f"{true} as {' '.join(said.split())}" for some in titles.values() for true, said in some]
    return drawn(fig, label, caption, "Pictures: " + "; ".join(listed) if listed else "No such picture.")
