"""Loss curves while a run trains, for whoever sits before a notebook."""

import os
import time
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import HTML, display
from matplotlib import pyplot as plt
from matplotlib import ticker

from report_lib.config import APPROACHES, Config
from report_lib.page.numbers import capital
from report_lib.page.parts import Figure, card
from report_lib.page.style import WIDTH, drawn, name_ends, styled

SECONDS = 0.5  # between two drawings; one takes a tenth of it
_shown: dict[str, Any] = {"cell": None, "output": None, "at": 0.0}  # a cell that trains has one output, which changes


def watch(config: Config, epochs: list[dict]) -> None:
    """Draws the losses of the run that trains, after each epoch.

    Draws nothing where nobody looks on, as under papermill: a Jupyter server names the notebook to its kernels.
    """
    shell = get_ipython()
    if shell is None or not os.environ.get("JPY_SESSION_NAME"):
        return
    if _shown["cell"] != shell.execution_count:
        _shown.update(cell=shell.execution_count, output=None, at=0.0)
    if time.monotonic() - _shown["at"] < SECONDS and len(epochs) < config.epochs:
        return
    picture = HTML(card(drawing(config, epochs).svg))
    if _shown["output"] is None:
        _shown["output"] = display(picture, display_id=True)
    else:
        _shown["output"].update(picture)
    _shown["at"] = time.monotonic()


def drawing(config: Config, epochs: list[dict]) -> Figure:
    """Training and validation loss, in nats per sample, of the epochs so far."""
    approach, number = APPROACHES[config.approach], [epoch["epoch"] for epoch in epochs]
    with styled():
        fig, axis = plt.subplots(figsize=(0.6 * WIDTH, 2.3))
        ends = {}
        for name, column, line in (("training", "train_loss", ":"), ("validation", "validation_loss", "-")):
            loss = [epoch[column] for epoch in epochs]
            axis.plot(number, loss, line, color=approach.colour, marker=".")
            ends[name] = (loss[-1], approach.colour)
        axis.set(xlim=(1, max(config.epochs, 2)), ylim=(0, None), xlabel="epoch")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        name_ends(axis, ends)
        axis.set_title(
            f"{capital(approach.name)}, {config.preset}, seed {config.seed}: epoch {len(epochs)} of "
            f"{config.epochs}, loss; validation {epochs[-1]['validation_accuracy']:.1%} right"
        )
    return drawn(fig, "fig-live", "Losses so far.", "Line chart of training and validation loss so far.")
