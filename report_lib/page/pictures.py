"""Runs and images -> figures made of pictures, uint8 (N, h, w, 3)."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from scipy.special import softmax

from report_lib.config import APPROACHES
from report_lib.data import Images
from report_lib.evidence import measures
from report_lib.evidence.measures import check_images, probabilities, the
from report_lib.page.numbers import confidence
from report_lib.page.parts import Figure
from report_lib.page.style import WIDTH, drawn, short_names, shorten, styled
from report_lib.runs import Run, Runs


def samples(images: Images, per_class: int = 4) -> Figure:
    """The first training images of up to ten classes."""
    pictures, labels, names = np.asarray(images.train), np.asarray(images.train_labels), images.classes
    shown = range(min(len(names), 10))
    titles = short_names(names, 18, 2)
    across, wide = min(len(shown), 5), int(np.ceil(per_class**0.5))
    lines, side = -(-len(shown) // across), WIDTH / 5
    height, width = pictures.shape[1:3]
    with styled():
        fig, axes = plt.subplots(lines, across, figsize=(side * across, (side + 0.25) * lines), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for label, axis in zip(shown, axes.flat, strict=False):
            axis.set_title(titles[label], loc="center")
            for place, index in enumerate(np.flatnonzero(labels == label)[:per_class]):
                row, column = divmod(place, wide)
                extent = (column * width, (column + 0.96) * width, -(row + 0.96) * height, -row * height)
                axis.imshow(pictures[index], extent=extent)
            axis.set(xlim=(0, wide * width), ylim=(-wide * height, 0))
    which = "classes" if len(shown) == len(names) else f"first {len(shown)} of {len(names)} classes"
    return drawn(
        fig,
        "fig-samples",
        f"Training images of the {which}, as stored, {pictures.shape[2]} × {pictures.shape[1]} pixels.",
        f"Example images, {per_class} of each of {len(shown)} classes.",
    )


def mistakes(runs: Mapping[str, Runs], images: Images, count: int = 6) -> Figure:
    """The wrong predictions that each approach (its first seed) is surest of.

    Raises InputError if `images` are not those of the runs.
    """
    rows = {APPROACHES[approach].name: (r[0], measures.mistakes(r[0], count)) for approach, r in runs.items()}
    surest = max((probabilities(run)[0].max(1)[at].max(initial=0) for run, at in rows.values()), default=0)
    return _gallery(
        "fig-mistakes", rows, images,
        f"The mistakes each approach is surest of (seed {_seed(runs)}): the true class, what was predicted, and with "
        f"which confidence. The surest has {confidence(float(surest), 1)}."
        if surest else "No approach makes a mistake on the test images.",
    )  # fmt: skip


def disagreements(runs: Mapping[str, Runs], images: Images, count: int = 6) -> Figure | None:
    """Test images that only one approach gets right (first seeds), surest first, with what the surest of the others
    says; None for a single approach. Raises InputError if `images` are not those of the runs."""
    if len(runs) < 2:
        return None
    firsts = {approach: r[0] for approach, r in runs.items()}
    right = {approach: measures.right((run,))[0] for approach, run in firsts.items()}
    rows, counts = {}, []
    for approach, run in firsts.items():
        others = {name: other for name, other in firsts.items() if name != approach}
        only = np.flatnonzero(right[approach] & ~np.any([right[name] for name in others], axis=0))
        wrong = max(others.values(), key=lambda other: probabilities(other)[0].max(1)[only].sum())
        own, labels = probabilities(run)
        lead = own[only, labels[only]] - probabilities(wrong)[0][only, labels[only]]
        name = APPROACHES[approach].name
        rows[f"only {name}"] = (wrong, only[np.argsort(-lead, kind="stable")][:count])
        counts.append(f"{len(only):,} only {the((run,))}")
    other = "the other one" if len(runs) == 2 else "the surest of the others"
    return _gallery(
        "fig-disagreements", rows, images,
        f"Test images that only one approach gets right (seed {_seed(runs)}; {', '.join(counts)}): the true class, and "
        f"what {other} said.",
    )  # fmt: skip


def neighbours(run: Run, rows: Sequence[tuple[int, Sequence[tuple[int, float]]]], images: Images) -> Figure:
    """Test images, each before the training images that are nearest to it: `rows` has (test image, its (training image,
    similarity) pairs)."""
    across = 1 + max((len(near) for _, near in rows), default=1)
    names, labels = short_names(images.classes, 12), np.asarray(images.train_labels)
    test, train = np.asarray(images.test), np.asarray(images.train)
    with _grid(lines := max(1, len(rows)), across, WIDTH, lines * (WIDTH / across + 0.55)) as (fig, axes):
        for line, (at, near) in zip(axes, rows, strict=False):
            line[0].imshow(test[at])
            line[0].set_title(f"{names[_label(run, at)]}\nas {_answer(run, at)}", fontsize=8, loc="center")
            for axis, (other, similarity) in zip(line[1:], near, strict=False):
                axis.imshow(train[other])
                axis.set_title(f"{names[labels[other]]}\n{similarity:.2f}", fontsize=8, loc="center")
    listed = [f"{run.classes[_label(run, at)]}, nearest {', '.join(run.classes[labels[n]] for n, _ in near)}"
              for at, near in rows]  # fmt: skip
    return drawn(
        fig,
        "fig-neighbours",
        f"The mistakes that {the((run,))} (seed {run.seed}) is surest of, at the left with true class, what it was "
        "taken for and confidence, and the training images nearest to each in the pretrained trunk’s features, with "
        "class and cosine similarity.",
        "Rows of pictures: " + "; ".join(listed) if listed else "There are no mistakes.",
    )


@contextlib.contextmanager
def _grid(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[plt.Figure, np.ndarray]]:  # type: ignore
    """A figure of axes (rows, columns) without ticks and frames, in our style."""
    with styled(axes_grid=False):
        fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        yield fig, axes


def _seed(runs: Mapping[str, Runs]) -> int:
    return next(iter(runs.values()))[0].seed


def _label(run: Run, at: int) -> int:
    return int(run.predictions["test_labels"][at])


def _answer(run: Run, at: int) -> str:
    """What a run took a test image for, and how surely."""
    probability = softmax(run.predictions["test_logits"][at].astype(float))
    return f"{short_names(run.classes, 14)[probability.argmax()]}\n{confidence(probability.max())}"


def _gallery(label: str, rows: Mapping[str, tuple[Run, np.ndarray]], images: Images, caption: str) -> Figure:
    """Test images in named rows, each with its true class above it and what a run says below."""
    across = max(1, max(len(chosen) for _, chosen in rows.values()))
    height = len(rows) * (WIDTH / max(across, 6) + 0.5)
    listed = []
    with _grid(len(rows), across, WIDTH, height) as (fig, axes):
        for line, (name, (run, chosen)) in zip(axes, rows.items(), strict=True):
            check_images(run, images.fingerprint)
            titles = short_names(run.classes, 14, 2)
            line[0].set_ylabel(shorten(name, 20, 2))
            if not len(chosen):
                line[0].text(0.5, 0.5, "none", ha="center", va="center", transform=line[0].transAxes)
            for axis, at in zip(line, chosen, strict=False):
                answer = _answer(run, at)
                axis.imshow(np.asarray(images.test[int(at)]))
                axis.set_title(titles[_label(run, at)], fontsize=8, loc="center")
                axis.set_xlabel(answer, fontsize=8, linespacing=1.3)
                listed.append(f"{run.classes[_label(run, at)]} as {' '.join(answer.split())}")
    return drawn(fig, label, caption, "Pictures: " + "; ".join(listed) if listed else "No such picture.")
