"""Runs and images -> figures made of pictures, uint8 (N, h, w, 3)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from scipy.special import softmax

from report_lib.config import APPROACHES
from report_lib.data import Images
from report_lib.evidence import measures
from report_lib.evidence.measures import check_images, probabilities, the
from report_lib.page.numbers import confidence, listed
from report_lib.page.parts import Figure
from report_lib.page.style import WIDTH, drawn, short_names, shorten, styled
from report_lib.runs import Run, Runs


def samples(images: Images, per_class: int = 2) -> Figure:
    """The first training images of up to ten classes."""
    pictures, labels, names = np.asarray(images.train), np.asarray(images.train_labels), images.classes
    shown = range(min(len(names), 10))
    titles = short_names(names, 18, 2)
    across, wide = min(len(shown), 5), int(np.ceil(per_class**0.5))
    lines, deep, side = -(-len(shown) // across), -(-per_class // wide), WIDTH / 5
    height, width = pictures.shape[1:3]
    with styled():
        size = side * across, (side * deep / wide + 0.25) * lines
        fig, axes = plt.subplots(lines, across, figsize=size, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for label, axis in zip(shown, axes.flat, strict=False):
            axis.set_title(titles[label], loc="center")
            for place, index in enumerate(np.flatnonzero(labels == label)[:per_class]):
                row, column = divmod(place, wide)
                extent = (column * width, (column + 0.96) * width, -(row + 0.96) * height, -row * height)
                axis.imshow(pictures[index], extent=extent)
            axis.set(xlim=(0, wide * width), ylim=(-deep * height, 0))
    which = "classes" if len(shown) == len(names) else f"first {len(shown)} of {len(names)} classes"
    return drawn(
        fig,
        "fig-samples",
        f"Training images of the {which}, as stored, {pictures.shape[2]} × {pictures.shape[1]} pixels.",
        f"Example images, {per_class} of each of {len(shown)} classes.",
    )


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture of a gallery, what stands above and below it, and what the figure's alternative text says of it."""

    picture: np.ndarray
    above: str
    below: str = ""
    words: str = ""


def mistakes(runs: Mapping[str, Runs], images: Images, count: int = 6) -> Figure:
    """The wrong predictions that each approach (its first seed) is surest of.

    Raises InputError if `images` are not those of the runs.
    """
    chosen = {approach: measures.mistakes(r[0], count) for approach, r in runs.items()}
    surest = max((probabilities(runs[name][0])[0].max(1)[at].max(initial=0) for name, at in chosen.items()), default=0)
    return _gallery(
        "fig-mistakes",
        f"The mistakes each approach is surest of ({_which(runs)}): the true class, what was predicted, and with "
        f"which confidence. The surest of all has {confidence(float(surest), 1)}."
        if surest else "No approach makes a mistake on the test images.",
        [(APPROACHES[name].name, _judged(runs[name][0], at, images)) for name, at in chosen.items()],
    )  # fmt: skip


def disagreements(runs: Mapping[str, Runs], images: Images, count: int = 6) -> Figure | None:
    """Test images that only one approach gets right (first seeds), surest first, with what the surest of the others
    says; None for a single approach. Raises InputError if `images` are not those of the runs."""
    if len(runs) < 2:
        return None
    firsts = {approach: r[0] for approach, r in runs.items()}
    right = {approach: measures.right((run,))[0] for approach, run in firsts.items()}
    rows, counts = [], []
    for approach, run in firsts.items():
        others = {name: other for name, other in firsts.items() if name != approach}
        only = np.flatnonzero(right[approach] & ~np.any([right[name] for name in others], axis=0))
        wrong = max(others.values(), key=lambda other: probabilities(other)[0].max(1)[only].sum())
        own, labels = probabilities(run)
        lead = own[only, labels[only]] - probabilities(wrong)[0][only, labels[only]]
        surest = only[np.argsort(-lead, kind="stable")][:count]
        rows.append((f"only {APPROACHES[approach].name}", _judged(wrong, surest, images)))
        counts.append(f"{len(only):,} only {the((run,))}")
    other = "the other one" if len(runs) == 2 else "the surest of the others"
    return _gallery(
        "fig-disagreements",
        f"Test images that only one approach gets right ({_which(runs)}; {', '.join(counts)}), those where it leads "
        f"most: the true class, and what {other} said, with which confidence.",
        rows,
    )


def neighbours(run: Run, rows: Sequence[tuple[int, Sequence[tuple[int, float]]]], images: Images) -> Figure:
    """Test images, each before the training images that are nearest to it: `rows` has (test image, its (training image,
    similarity) pairs)."""
    names, labels = short_names(images.classes, 12), np.asarray(images.train_labels)
    shown = []
    for at, near in rows:
        true, like = _label(run, at), ", ".join(run.classes[labels[other]] for other, _ in near)
        mistake = Shown(np.asarray(images.test[at]), f"{names[true]}\nas {_answer(run, at)}",
                        words=f"{run.classes[true]}, nearest {like}")  # fmt: skip
        beside = [Shown(np.asarray(images.train[n]), f"{names[labels[n]]}\n{similarity:.2f}") for n, similarity in near]
        shown.append(("", [mistake, *beside]))
    return _gallery(
        "fig-neighbours",
        f"The mistakes that {the((run,))} (seed {run.seed}) is surest of, at the left with true class, what it was "
        "taken for and confidence, and the training images nearest to each in the pretrained trunk’s features, with "
        "class and cosine similarity.",
        shown,
    )


def _which(runs: Mapping[str, Runs]) -> str:
    """The seed and the presets of pictures."""
    firsts = [each[0] for each in runs.values()]
    return f"seed {firsts[0].seed}, preset {listed(run.preset for run in firsts)}"


def _label(run: Run, at: int) -> int:
    return int(run.predictions["test_labels"][at])


def _answer(run: Run, at: int) -> str:
    """What a run took a test image for, and how surely."""
    probability = softmax(run.predictions["test_logits"][at].astype(float))
    return f"{short_names(run.classes, 14)[probability.argmax()]}\n{confidence(probability.max())}"


def _judged(run: Run, chosen: np.ndarray, images: Images) -> list[Shown]:
    """Test images, each with its true class above it and what a run says below."""
    check_images(run, images.fingerprint)
    titles, shown = short_names(run.classes, 14, 2), []
    for at in map(int, chosen):
        true, answer = _label(run, at), _answer(run, at)
        words = f"{run.classes[true]} as {' '.join(answer.split())}"
        shown.append(Shown(np.asarray(images.test[at]), titles[true], answer, words))
    return shown


def _gallery(label: str, caption: str, rows: Sequence[tuple[str, Sequence[Shown]]]) -> Figure:
    """Pictures in rows, each row with its name at the left."""
    across = max((len(shown) for _, shown in rows), default=1) or 1
    every = [one for _, shown in rows for one in shown]
    lines = sum(max((text.count("\n") + 1 for text in texts if text), default=0)
                for texts in ([one.above for one in every], [one.below for one in every]))  # fmt: skip
    height = max(1, len(rows)) * (WIDTH / max(across, 7) + 0.17 + 0.145 * lines)  # inches
    with styled(axes_grid=False):
        fig, axes = plt.subplots(max(1, len(rows)), across, figsize=(WIDTH, height), squeeze=False)
        # What is below a picture and what is above the next stay apart.
        fig.get_layout_engine().set(hspace=0.12)  # type: ignore[union-attr,call-arg]
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for line, (name, shown) in zip(axes, rows, strict=False):
            line[0].set_ylabel(shorten(name, 20, 2))
            if not shown:
                line[0].text(0.5, 0.5, "none", ha="center", va="center", transform=line[0].transAxes)
            for axis, one in zip(line, shown, strict=False):
                axis.imshow(one.picture)
                axis.set_title(one.above, fontsize=8, loc="center")
                axis.set_xlabel(one.below, fontsize=8, linespacing=1.3)
    words = "; ".join(one.words for one in every if one.words)
    return drawn(fig, label, caption, f"Pictures: {words}" if words else "No such picture.")
