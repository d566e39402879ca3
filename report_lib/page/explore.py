"""A look around finished runs: the test images behind a cell of the confusion matrix, what lies near them, and what the
networks say of a photograph of one's own."""

import base64
import functools
import html
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import HTML
from matplotlib.colors import to_hex, to_rgb
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from report_lib.config import APPROACHES
from report_lib.data import Images, read_picture, split
from report_lib.evidence.measures import check_images, confusion, mistakes, probabilities
from report_lib.files import InputError, locate
from report_lib.page import pictures
from report_lib.page.numbers import percent
from report_lib.page.parts import Figure, Prose
from report_lib.page.style import short_names
from report_lib.runs import Run, Runs, Study, predict
from report_lib.training import features_of

SHOWN = 24  # pictures at most behind one cell
NEAREST = 8
GRID = 12  # more classes than this are chosen from lists alone
EVERY = -1  # stands for any class in a list
CELL = {"width": "3.2em", "margin": "1px", "padding": "0"}
NAME = {"width": "9em"}
STILL = "With a running kernel there are buttons here."


@dataclass(frozen=True)
class Space:
    """Where the pretrained trunk puts images: `train` and `test` float32 (N, width); `index` (N,) says which train."""

    train: np.ndarray
    test: np.ndarray
    index: np.ndarray

    @functools.cached_property
    def _search(self) -> NearestNeighbors:
        return NearestNeighbors(metric="cosine").fit(self.train)

    def nearest(self, image: int, count: int = NEAREST) -> list[tuple[int, float]]:
        """(training image, cosine similarity) of those nearest to a test image, the nearest first."""
        distance, near = self._search.kneighbors(self.test[image : image + 1], min(count, len(self.train)))
        return [(int(self.index[at]), 1 - float(away)) for away, at in zip(distance[0], near[0], strict=True)]


def space(study: Study, images: Images) -> Space:
    """The frozen features of the images that train a head alone, and of all test images; from the cache, where
    that training has left them."""
    probe = next(name for name in study.approaches if APPROACHES[name].trains == "head")
    config, device = study.config(probe, "corrected"), study.settings["device"]
    index = split(images.train_labels, config)[0].numpy()
    train, test = (features_of(config, images, part, device).numpy() for part in ("train", "test"))
    return Space(train[index], test, index)


def chosen(run: Run, true: int = EVERY, predicted: int = EVERY) -> np.ndarray:
    """The test images of class `true` that the run calls `predicted`, the surest first; EVERY is any class."""
    probability, labels = probabilities(run)
    guess = probability.argmax(1)
    at = np.flatnonzero(((labels == true) | (true == EVERY)) & ((guess == predicted) | (predicted == EVERY)))
    return at[np.argsort(-probability.max(1)[at], kind="stable")]


def neighbours(run: Run, images: Images, where: Space, count: int = 4) -> Figure:
    """The surest mistakes of a run, each with the training images nearest to it.

    Raises InputError if `images` are not those of the run.
    """
    check_images(run, images.fingerprint)
    return pictures.neighbours(run, [(int(at), where.nearest(int(at))) for at in mistakes(run, count)], images)


class Browser:
    """Widgets that answer a click on the confusion matrix with pictures; without a kernel, a sentence."""

    def __init__(self, runs: Mapping[str, Runs], images: Images, where: Space) -> None:
        self.runs = {approach: seeds[0] for approach, seeds in runs.items()}
        for run in self.runs.values():
            check_images(run, images.fingerprint)
        self.images, self.where, self.classes = images, where, images.classes
        approaches = [(APPROACHES[name].name, name) for name in self.runs]
        names = [("any class", EVERY), *((name, at) for at, name in enumerate(self.classes))]
        self.approach = widgets.ToggleButtons(options=approaches, description="approach")
        self.true = widgets.Dropdown(options=names, description="true class")
        self.predicted = widgets.Dropdown(options=names, description="taken for")
        self.image = widgets.Dropdown(description="near image")
        self.grid, self.gallery, self.near = widgets.VBox(), widgets.HTML(), widgets.HTML()
        self.settling = False  # while choices are set by a program, which then answers once
        for choice, answer in ((self.approach, self.show_matrix), (self.true, self.show), (self.predicted, self.show),
                               (self.image, self.show_near)):  # fmt: skip
            choice.observe(lambda _, answer=answer: self.settling or answer(), "value")
        self.show_matrix()
        lists = widgets.HBox([self.true, self.predicted])
        self.box = widgets.VBox([self.approach, self.grid, lists, self.gallery, self.image, self.near])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        still = Prose(f"{STILL} [Figure](#fig-neighbours) shows what they lead to.")
        return {**still._repr_mimebundle_(), **self.box._repr_mimebundle_()}

    def show_matrix(self) -> None:
        """The confusion matrix of the chosen approach, a button a cell; of many classes there are the lists alone."""
        if len(self.classes) <= GRID:
            run, heads = self.runs[self.approach.value], map(html.escape, short_names(self.classes, 6))
            colour = np.array(to_rgb(APPROACHES[run.approach].colour))
            lines = [[_label("", NAME), *(_label(f'<span style="font-size:.75em">{name}</span>') for name in heads)]]
            for true, row in enumerate(confusion((run,))):
                lines.append([_label(html.escape(self.classes[true]), NAME)])
                for predicted, number in enumerate(row):
                    shade = to_hex(1 + (colour - 1) * 0.7 * number / max(row.sum(), 1))
                    said = f"{self.classes[true]} taken for {self.classes[predicted]}: {number}"
                    style = {"button_color": shade, "text_color": "black"}
                    cell = widgets.Button(description=str(number or "·"), tooltip=said, layout=CELL, style=style)
                    cell.on_click(lambda _, true=true, predicted=predicted: self.choose(true, predicted))
                    lines[-1].append(cell)
            self.grid.children = [widgets.HBox(line) for line in lines]
        self.show()

    def choose(self, true: int, predicted: int) -> None:
        """Shows the images of class `true` that the chosen approach takes for `predicted`."""
        self.settling = True
        self.true.value, self.predicted.value = true, predicted
        self.settling = False
        self.show()

    def show(self) -> None:
        """The pictures behind the chosen cell, and what every approach says of each, the chosen one first."""
        name = self.approach.value
        at = chosen(self.runs[name], self.true.value, self.predicted.value)
        opinions = {other: probabilities(self.runs[other])[0] for other in dict.fromkeys([name, *self.runs])}
        shown = []
        for image in at[:SHOWN]:
            lines = [f"{APPROACHES[other].name}: {self.classes[p[image].argmax()]}, {percent(p[image].max(), 0)}"
                     for other, p in opinions.items()]  # fmt: skip
            title = f"#{image} {self.classes[self.images.test_labels[image]]}"
            shown.append((self.images.test[image], [title, *lines]))
        head = f"{len(at):,} test images" + (f", the surest {SHOWN} of them" if len(at) > SHOWN else "")
        self.gallery.value = gallery(head, shown)
        self.settling = True
        self.image.options = [(f"#{image}", int(image)) for image in at[:SHOWN]]
        self.image.index = 0 if len(at) else None  # a list that was empty chooses nothing by itself
        self.settling = False
        self.show_near()

    def show_near(self) -> None:
        """The training images nearest to the chosen test image, in the space of the pretrained trunk's features."""
        near = [] if self.image.value is None else self.where.nearest(self.image.value)
        shown = [(self.images.train[at], [self.classes[self.images.train_labels[at]], f"similarity {similarity:.2f}"])
                 for at, similarity in near]  # fmt: skip
        self.near.value = gallery(f"The training images nearest to #{self.image.value}", shown) if shown else ""


def photograph(runs: Mapping[str, Runs], path: str | Path) -> HTML:
    """An image file of one's own, and what the network of each approach (its first seed) takes it for.

    Raises InputError if the file is no image, or the study has not kept the trained networks.
    """
    lines, file = [], locate(str(path))
    for approach, seeds in runs.items():
        likeliest = predict(seeds[0], [file])[0]["classes"][:3]
        answers = ", ".join(f"{each['class']} {percent(each['probability'], 0)}" for each in likeliest)
        lines.append(f"{APPROACHES[approach].name}: {answers}")
    return HTML(gallery(file.name, [(read_picture(file), lines)]))


class Upload:
    """A button that takes a photograph and shows what the networks take it for; without a kernel, a sentence."""

    def __init__(self, runs: Mapping[str, Runs]) -> None:
        self.runs, self.answer = runs, widgets.HTML()
        self.button = widgets.FileUpload(accept="image/*", description="photograph")
        self.button.observe(lambda _: self.show(), "value")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        return {**Prose(STILL)._repr_mimebundle_(), **widgets.VBox([self.button, self.answer])._repr_mimebundle_()}

    def show(self) -> None:
        """What the networks say of the photograph that was chosen last, or why they cannot."""
        with tempfile.TemporaryDirectory() as folder:
            for upload in self.button.value[-1:]:
                path = Path(folder, Path(upload["name"]).name)
                path.write_bytes(upload["content"])
                try:
                    self.answer.value = photograph(self.runs, path).data
                except InputError as error:
                    self.answer.value = f"<p>{html.escape(str(error))}</p>"


def _label(text: str, layout: dict = CELL) -> widgets.HTML:
    return widgets.HTML(text, layout=layout)


def gallery(head: str, shown: Sequence[tuple[np.typing.ArrayLike, Sequence[str]]]) -> str:
    """HTML of pictures, uint8 (h, w, 3), each with lines of text below it; the text may be anybody's."""
    figures = []
    for pixels, lines in shown:
        file = io.BytesIO()
        Image.fromarray(np.asarray(pixels)).save(file, "PNG")
        source = base64.b64encode(file.getvalue()).decode()
        figures.append(
            f'<figure style="display:inline-block;width:9em;margin:.4em;vertical-align:top">'
            f'<img src="data:image/png;base64,{source}" alt="{html.escape("; ".join(lines))}" '
            'style="width:100%;image-rendering:auto"><figcaption style="font-size:.8em;line-height:1.3">'
            f"{'<br>'.join(map(html.escape, lines))}</figcaption></figure>"
        )
    return f"<p>{html.escape(head)}</p>{''.join(figures)}"
