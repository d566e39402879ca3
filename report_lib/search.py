"""The search behind the recipe `tuned`: every trial trained like any run, judged on validation images alone.

Trials are kept one a line in report/tuning/<approach>.csv; a search that was stopped goes on where it was.
"""

import csv
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

from report_lib import progress
from report_lib.disk import write_whole
from report_lib.recipe import NAMED, PROJECT, InputError, Recipe, named, settings, source_hash

FOLDER = PROJECT / "report" / "tuning"

# What is tried for each approach: all combinations. Whatever else `tuned` sets stays as it is.
GRID: dict[str, list[dict[str, list]]] = {
    "linear_probe": [
        {"learning_rate": [0.0001, 0.0003, 0.001, 0.003], "weight_decay": [0.01, 0.1, 1.0, 10.0]},
    ],
    "full_finetune": [
        {"learning_rate": [0.0001, 0.0003, 0.001, 0.003], "trunk_rate": [1.0], "weight_decay": [0.05]},
        {"learning_rate": [0.001], "trunk_rate": [0.3], "weight_decay": [0.05]},
    ],
}  # fmt: skip


def trials(approach: str) -> Iterator[dict]:
    """The settings to try, in order."""
    for grid in GRID[approach]:
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def search(approach: str, shared: dict, device: str = "auto", cache: str = "") -> Path:
    """Trains each trial of `approach` once on the data, size and budget that `shared` fields say; returns the file.

    Raises InputError if the file holds a search that was made otherwise.
    """
    from report_lib import data, machine, model, train
    from report_lib.recipe import folder

    path = FOLDER / f"{approach}.csv"
    chosen_device = machine.pick_device(device)
    first = named(approach, "tuned", **shared)
    images = data.load(shared["data"], shared["image_size"], cache)
    weights = model.load_weights(shared["weights"])
    conditions = {name: value for name, value in shared.items() if name not in ("data", "weights")}
    conditions |= {"data": images.fingerprint, "weights": weights.sha256, "code": source_hash()}
    conditions["validation_images"] = len(data.split(images.train_labels, first)[1])
    tried = set().union(*GRID[approach])
    fixed = settings(first)
    conditions["fixed"] = {name: fixed[name] for name in NAMED["tuned"][approach] if name not in tried}
    if "probe" in fixed:
        conditions["fixed"]["probe"] = fixed["probe"]
    done = read(path, conditions)
    for trial in progress.each(list(trials(approach)), "trials", "trial"):
        if any(all(row[name] == value for name, value in trial.items()) for row in done):
            continue
        recipe: Recipe = named(approach, "tuned", **(shared | trial))
        data.check(images, recipe)
        precision = machine.pick_precision(recipe.precision, chosen_device)
        setting = train.Setting(images, weights, chosen_device, precision, folder(cache, "REPORT_CACHE", ".cache"))
        clock = time.perf_counter()
        try:
            history = train.adapt(recipe, setting).history
            best = history.epochs[history.selected - 1]
            outcome = {"validation_accuracy": best["validation_accuracy"], "validation_loss": best["validation_loss"]}
        except train.Diverged:
            outcome = {"validation_accuracy": 0.0, "validation_loss": None}
        done.append(trial | outcome | {"seconds": round(time.perf_counter() - clock, 1)})
        write(path, conditions, done)
    return path


def conditions(approach: str) -> dict:
    """What the recorded search ran on, and how many validation images judged it; empty if none is recorded."""
    path = FOLDER / f"{approach}.csv"
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def winner(approach: str) -> dict:
    """The settings of the trial with the best validation accuracy; empty if no search is recorded."""
    rows = read(FOLDER / f"{approach}.csv")
    if not rows:
        return {}
    best = max(rows, key=lambda row: row["validation_accuracy"])
    return {name: value for name, value in best.items() if name in set().union(*GRID[approach])}


def read(path: Path, conditions: dict | None = None) -> list[dict]:
    """The trials in `path`, none if there is no such file. Raises InputError if `conditions` were others."""
    if not path.is_file():
        return []
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    if conditions is not None and json.loads(first.removeprefix("# ")) != conditions:
        raise InputError(f"{path} holds a search under other conditions ({first.removeprefix('# ')}); move it away")
    rows = csv.DictReader(lines)
    return [{name: _value(text) for name, text in row.items() if text != ""} for row in rows]


def write(path: Path, conditions: dict, rows: list[dict]) -> None:
    """Replaces `path` by a comment line of the conditions and a row a trial, as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["# " + json.dumps(conditions), ",".join(names)]
    lines += [",".join("" if row.get(name) is None else str(row[name]) for name in names) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "\n".join(lines) + "\n")


def _value(text: str) -> str | float | int:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
