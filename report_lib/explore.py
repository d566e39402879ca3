"""A look around finished runs: the test images behind a cell of the confusion matrix, and what lies near them."""

import base64
import functools
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from report_lib import data, machine, model, pictures, train
from report_lib.document import Figure, Prose
from report_lib.formats import percent
from report_lib.measures import NAMES, Study, check_images, confusion_of, probabilities, surest_mistakes
from report_lib.recipe import Recipe, folder
from report_lib.records import Run
from report_lib.style import COLOURS, short

SHOWN = 24  # pictures at most behind one cell
NEAREST = 8
GRID = 12  # more classes than this are chosen from lists alone
EVERY = -1  # stands for any class in a list
CELL = {"width": "3.2em", "margin": "1px", "padding": "0"}
NAME = {"width": "9em"}


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
        distance, found = self._search.kneighbors(self.test[image : image + 1], min(count, len(self.train)))
        return [(int(self.index[at]), 1 - float(away)) for away, at in zip(distance[0], found[0], strict=True)]


def space(recipe: Recipe, images: data.Images, device: str = "auto") -> Space:
    """The frozen features of a linear probe `recipe`, of its training images and of all test images.

    They come from the cache, where training the probe has left them.
    """
    where = machine.pick_device(device)
    precision = machine.pick_precision(recipe.precision, where)
    setting = train.Setting(
        images, model.load_weights(recipe.weights), where, precision, folder("", "REPORT_CACHE", ".cache")
    )
    net = model.build(setting.weights, len(images.classes), recipe.seed).to(where)
    with machine.autocast(precision, where):
        _, read = train.prepare(net, recipe, setting)
        inputs, _ = read("train")
        of_test, _ = read("test")
    index = data.split(images.train_labels, recipe)[0]
    everything = torch.arange(len(images.test_labels))
    return Space(inputs(index).float().cpu().numpy(), of_test(everything).float().cpu().numpy(), index.numpy())


def chosen(run: Run, true: int = EVERY, said: int = EVERY) -> np.ndarray:
    """The test images of class `true` that the run calls `said`, the surest first; EVERY is any class."""
    probability, labels = probabilities(run)
    guess = probability.argmax(1)
    found = np.flatnonzero(((labels == true) | (true == EVERY)) & ((guess == said) | (said == EVERY)))
    return found[np.argsort(-probability.max(1)[found], kind="stable")]


def neighbours(run: Run, images: data.Images, where: Space, count: int = 4) -> Figure:
    """The surest mistakes of a run, each with the training images nearest to it.

    Raises InputError if `images` are not those of the run.
    """
    check_images(run, images.fingerprint)
    rows = [(int(at), where.nearest(int(at))) for at in surest_mistakes(run, count)]
    return pictures.neighbours(run, rows, images.test.numpy(), images.train.numpy(), images.train_labels.numpy())


class Browser:
    """Widgets that answer a click on the confusion matrix with pictures; without a kernel, a sentence."""

    def __init__(self, study: Study, images: data.Images, where: Space) -> None:
        self.runs = {approach: runs[0] for approach, runs in study.items()}
        for run in self.runs.values():
            check_images(run, images.fingerprint)
        self.images, self.where = images, where
        self.classes = images.classes
        self.approach = widgets.ToggleButtons(
            options=[(NAMES[name], name) for name in self.runs], description="approach"
        )
        names = [("any class", EVERY), *((name, at) for at, name in enumerate(self.classes))]
        self.true = widgets.Dropdown(options=names, description="true class")
        self.said = widgets.Dropdown(options=names, description="taken for")
        self.grid = widgets.VBox()
        self.gallery = widgets.HTML()
        self.image = widgets.Dropdown(description="near image")
        self.near = widgets.HTML()
        self.settling = False  # while choices are set by a program, which then answers once
        for choice, answer in (
            (self.approach, self.show_matrix), (self.true, self.show), (self.said, self.show),
            (self.image, self.show_near),
        ):  # fmt: skip
            choice.observe(lambda _, answer=answer: self.settling or answer(), "value")
        self.show_matrix()
        chooser = widgets.HBox([self.true, self.said])
        self.box = widgets.VBox([self.approach, self.grid, chooser, self.gallery, self.image, self.near])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        still = Prose(
            "With a running kernel there are buttons here. [Figure](#fig-neighbours) shows what they lead to."
        )
        return {**still._repr_mimebundle_(), **self.box._repr_mimebundle_()}

    def show_matrix(self) -> None:
        """The confusion matrix of the chosen approach, a button a cell; of many classes there are the lists alone."""
        if len(self.classes) <= GRID:
            self.grid.children = self._cells(self.runs[self.approach.value])
        self.show()

    def _cells(self, run: Run) -> list[widgets.HBox]:
        heads = [
            widgets.HTML(f'<span style="font-size:.75em">{html.escape(short(name, 6))}</span>', layout=CELL)
            for name in self.classes
        ]
        lines = [widgets.HBox([widgets.HTML("", layout=NAME), *heads])]
        for true, row in enumerate(confusion_of([run])):
            cells = []
            for said, number in enumerate(row):
                share = number / max(row.sum(), 1)
                cell = widgets.Button(
                    description=str(number) if number else "·",
                    tooltip=f"{self.classes[true]} taken for {self.classes[said]}: {number}",
                    layout=CELL,
                    style={"button_color": shade(COLOURS[run.approach], share), "text_color": "black"},
                )
                cell.on_click(lambda _, true=true, said=said: self.choose(true, said))
                cells.append(cell)
            name = widgets.HTML(html.escape(self.classes[true]), layout=NAME)
            lines.append(widgets.HBox([name, *cells]))
        return lines

    def choose(self, true: int, said: int) -> None:
        """Shows the images of class `true` that the chosen approach takes for `said`."""
        self.settling = True
        self.true.value, self.said.value = true, said
        self.settling = False
        self.show()

    def show(self) -> None:
        """The pictures behind the chosen cell, and what the other approach says of each."""
        run = self.runs[self.approach.value]
        other = next(self.runs[name] for name in self.runs if name != run.approach)
        found = chosen(run, self.true.value, self.said.value)
        ours, labels = probabilities(run)
        theirs, _ = probabilities(other)
        shown = []
        for at in found[:SHOWN]:
            lines = [f"#{at} {self.classes[labels[at]]}", f"{NAMES[run.approach]}: {self._opinion(ours[at])}",
                     f"{NAMES[other.approach]}: {self._opinion(theirs[at])}"]  # fmt: skip
            shown.append((self.images.test[at].numpy(), lines))
        head = f"{len(found):,} test images" + (f", the surest {SHOWN} of them" if len(found) > SHOWN else "")
        self.gallery.value = gallery(head, shown)
        self.settling = True
        self.image.options = [(f"#{at}", int(at)) for at in found[:SHOWN]]
        self.image.index = 0 if len(found) else None  # a list that was empty chooses nothing by itself
        self.settling = False
        self.show_near()

    def show_near(self) -> None:
        """The training images nearest to the chosen test image, in the space of the pretrained trunk's features."""
        if self.image.value is None:
            self.near.value = ""
            return
        labels = self.images.train_labels
        shown = [
            (self.images.train[at].numpy(), [self.classes[labels[at]], f"similarity {similarity:.2f}"])
            for at, similarity in self.where.nearest(self.image.value)
        ]
        self.near.value = gallery(f"The training images nearest to #{self.image.value}", shown)

    def _opinion(self, probability: np.ndarray) -> str:
        return f"{self.classes[int(probability.argmax())]}, {percent(float(probability.max()), 0)}"


def gallery(head: str, shown: Sequence[tuple[np.ndarray, Sequence[str]]]) -> str:
    """HTML of pictures, uint8 (h, w, 3), each with lines of text below it; the text may be anybody's."""
    figures = []
    for pixels, lines in shown:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        source = base64.b64encode(file.getvalue()).decode()
        said = "<br>".join(map(html.escape, lines))
        figures.append(
            f'<figure style="display:inline-block;width:9em;margin:.4em;vertical-align:top">'
            f'<img src="data:image/png;base64,{source}" alt="{html.escape("; ".join(lines))}" '
            f'style="width:100%;image-rendering:auto"><figcaption style="font-size:.8em;line-height:1.3">{said}'
            "</figcaption></figure>"
        )
    return f"<p>{html.escape(head)}</p>{''.join(figures)}"


def shade(colour: str, share: float) -> str:
    """`colour`, "#rrggbb", on white paper with this opacity (0 to 1)."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * 0.7 * share):02x}" for part in parts)
