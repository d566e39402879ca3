"""Loss curves while a run trains, for whoever sits before a notebook. Imports no torch."""

import os
import time
from collections.abc import Callable
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import SVG, display
from matplotlib import pyplot as plt
from matplotlib import ticker

from report_lib.document import Figure
from report_lib.measures import NAMES
from report_lib.recipe import Recipe
from report_lib.style import COLOURS, WIDTH, drawn, name_ends, styled

SECONDS = 0.5  # between two drawings; one takes a tenth of it


def curves() -> Callable[[Recipe, list[dict]], None]:
    """For `runner.run(..., watch=)`: draws the losses of the run that trains, in one output that changes.

    Draws nothing where nobody looks on, as under papermill: a Jupyter server names the notebook to its kernels.
    """
    if get_ipython() is None or not os.environ.get("JPY_SESSION_NAME"):
        return lambda recipe, epochs: None
    output: Any = None
    drawn_at = 0.0

    def watch(recipe: Recipe, epochs: list[dict]) -> None:
        nonlocal output, drawn_at
        if time.monotonic() - drawn_at < SECONDS and len(epochs) < recipe.epochs:
            return
        shown = SVG(drawing(recipe, epochs).svg)
        if output is None:
            output = display(shown, display_id=True)
        else:
            output.update(shown)
        drawn_at = time.monotonic()

    return watch


def drawing(recipe: Recipe, epochs: list[dict]) -> Figure:
    """Training and validation loss, in nats a sample, of the epochs so far."""
    colour, number = COLOURS[recipe.approach], [epoch["epoch"] for epoch in epochs]
    with styled():
        fig, axis = plt.subplots(figsize=(0.6 * WIDTH, 2.3))
        ends = {}
        for name, column, line in (("training", "train_loss", ":"), ("validation", "validation_loss", "-")):
            loss = [epoch[column] for epoch in epochs]
            axis.plot(number, loss, line, color=colour, marker=".")
            ends[name] = (loss[-1], colour)
        axis.set(xlim=(1, max(recipe.epochs, 2)), ylim=(0, None), xlabel="epoch")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        name_ends(axis, ends)
        axis.set_title(
            f"{NAMES[recipe.approach].capitalize()}, {recipe.recipe}, seed {recipe.seed}: epoch {len(epochs)} of "
            f"{recipe.epochs}, loss; validation {epochs[-1]['validation_accuracy']:.1%} right"
        )
    return drawn(fig, "fig-live", "Losses so far.", "Line chart of training and validation loss so far.")
