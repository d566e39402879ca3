"""The search behind the preset `tuned`: every trial trained like any run, judged on validation images alone.

    python -m tuning.search --approach linear_probe --profile cifar10 --data ...      (with report/ on PYTHONPATH)

Trials are kept in report/tuning/<approach>.yaml, of few labels per class in <approach>_few.yaml; a search that was
stopped goes on where it was.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from bench.whole import trained

from report_lib import data, models, training
from report_lib.config import APPROACHES, FEW_LABELS, PRESETS, Config, decides, parameters, preset, resolve
from report_lib.config.plan import given
from report_lib.files import InputError, each, read_yaml, write_whole

FOLDER = Path(__file__).parent

# What is tried, by what an approach trains: all combinations, as many for each approach. Whatever else `tuned` sets
# stays as it is.
GRID: dict[str, dict[str, list]] = {
    "head": {"epochs": [5, 10], "learning_rate": [0.0003, 0.001], "weight_decay": [0.1, 1.0]},
    "all": {"epochs": [5, 10], "learning_rate": [0.0003, 0.001], "trunk_rate": [0.3, 1.0]},
}


def trials(trains: str) -> Iterator[dict]:
    """The settings to try, in order."""
    for values in itertools.product(*GRID[trains].values()):
        yield dict(zip(GRID[trains], values, strict=True))


def search(approach: str, shared: dict, device: str = "auto", cache: str = "", folder: Path = FOLDER) -> Path:
    """Trains each trial of `approach` once with the fields in `shared`; returns the file of the trials.

    Raises InputError if the file holds a search that was made otherwise.
    """
    trains = APPROACHES[approach].trains
    first = preset(approach, "tuned", **shared)
    path = folder / f"{approach}{'_few' if 0 < first.per_class <= FEW_LABELS else ''}.yaml"
    images = data.load(first, cache=cache)
    weights = models.load_weights(first.weights, first.network)
    conditions = {name: value for name, value in shared.items() if name not in ("data", "weights")}
    conditions |= {"data": images.fingerprint, "weights": weights.sha256, "code": training.code_hash()}
    conditions["validation_images"] = len(data.split(images.train_labels, first)[1])
    conditions["fixed"] = {name: decides(first)[name] for name in PRESETS["tuned"][trains] if name not in GRID[trains]}
    done = read(path, conditions)
    for trial in each(list(trials(trains)), "trials", "trial"):
        if any(all(row.get(name) == value for name, value in trial.items()) for row in done):
            continue
        config: Config = preset(approach, "tuned", **(shared | trial))
        data.check(images, config)
        clock = time.perf_counter()
        outcome = judge(config, images, weights, training.place(device, config.precision, cache))
        done.append(trial | outcome | {"seconds": round(time.perf_counter() - clock, 1)})
        content = {"conditions": conditions, "trials": done, "winner": winner(done, trains, conditions)}
        write_whole(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=200))
    return path


def judge(config: Config, images: data.Images, weights: models.Weights, place: training.Place) -> dict:
    """What validation says of one trial; nothing is tested."""
    try:
        _, history = trained(config, images, weights, place)
    except training.Diverged:
        return {"validation_accuracy": 0.0, "validation_loss": None}
    best = history.epochs[history.selected - 1]
    return {name: best[name] for name in ("validation_accuracy", "validation_loss")}


def winner(rows: list[dict], trains: str, conditions: dict) -> dict:
    """The settings of the cheapest trial that is as good: of those with the fewest epochs of all that come within one
    standard error of the best validation accuracy (Breiman et al. 1984), the best one."""
    best = max(row["validation_accuracy"] for row in rows)
    least = best - math.sqrt(best * (1 - best) / conditions["validation_images"])
    good = [row for row in rows if row["validation_accuracy"] >= least]
    chosen = min(good, key=lambda row: (row.get("epochs", 0), -row["validation_accuracy"]))
    return {name: value for name, value in chosen.items() if name in GRID[trains]}


def read(path: Path, conditions: dict | None = None) -> list[dict]:
    """The trials in `path`, none if there is no such file. Raises InputError if `conditions` were others."""
    if not path.is_file():
        return []
    content = read_yaml(path)
    if conditions is not None and content["conditions"] != conditions:  # type: ignore[index, call-overload]
        raise InputError(f"{path} holds a search under other conditions; move it away")
    return content["trials"]  # type: ignore[index, call-overload]


def main() -> int:
    options = argparse.ArgumentParser(prog="tuning.search", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    options.add_argument("--approach", required=True, choices=APPROACHES)
    for name in parameters.PARAMETERS:
        options.add_argument(f"--{name.replace('_', '-')}")
    chosen = vars(options.parse_args())
    approach = chosen.pop("approach")
    try:
        typed = parameters.typed({name: text for name, text in chosen.items() if text is not None}, at_shell=True)
        settings = resolve(typed.pop("profile", "demo"), typed)
        shared = given(settings, approach) | {"seed": settings["seeds"][0]}
        print(search(approach, shared, settings["device"]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
