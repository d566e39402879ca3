"""A recorded run, made again: did it come out the same, and if not, how far off?"""

import tempfile
from pathlib import Path

import numpy as np

from report_lib import data, model, plan, profiles, records, runner
from report_lib.formats import percent
from report_lib.recipe import APPROACHES, InputError, Recipe, check_writable, folder, locate, source_hash


def verify(record: str, device: str = "auto", cache: str = "") -> tuple[bool, str]:
    """(whether it came out the same, bit for bit, a sentence on each thing that differs).

    `record` is the folder of a run, or a file of parameters, of which the first run is taken. The run is made again in
    a store of its own, frozen features included, and nothing of it is kept. Raises InputError if there is no such run.
    """
    first = records.load(_found(record))
    made = first.info["provenance"]
    recipe = _recipe(first)
    notes = [f"{first.path.name}, made {made['finished'][:16]} on {_where(made)}"]
    there = {"data": data.load(recipe.data, recipe.image_size, cache).fingerprint,
             "weights": model.load_weights(recipe.weights).sha256}  # fmt: skip
    for what, key in (("data", "fingerprint"), ("weights", "sha256")):
        if first.info[what][key] != there[what]:
            raise InputError(f"{what} is {getattr(recipe, what)!r}, which is no longer what {record} was made with")
    kept = folder(cache, "REPORT_CACHE", ".cache")
    check_writable(kept, "cache")
    # The features lie in the cache, whose disk has room for them; what a kill leaves of them is swept there.
    with tempfile.TemporaryDirectory() as store, tempfile.TemporaryDirectory(prefix=".features-", dir=kept) as anew:
        again = runner.run(recipe, store, cache, device, features=anew)
        now = again.info["provenance"]
        if _where(made) != _where(now):
            notes.append(f"this time on {_where(now)}")
        if made["code"] != source_hash():
            notes.append(f"the code of commit {(made['commit'] or 'unknown')[:12]} has changed since")
        changed = {name: (old, now["packages"].get(name)) for name, old in made["packages"].items()}
        notes += [f"{name} was {old} and is {new}" for name, (old, new) in changed.items() if old != new]
        same, outcome = _compared(first, again)
    return same, "\n".join([*notes, outcome])


def _found(record: str) -> Path:
    path = locate(record)
    if path.is_dir():
        return path
    chosen = profiles.study_of(path)
    store = folder(chosen["runs"], "REPORT_RUNS", ".runs")
    recipes = plan.plan(APPROACHES[0], **profiles.study(chosen))[plan.MAIN]
    return records.requested(store, recipes[:1])[0].path


def _recipe(run: records.Run) -> Recipe:
    try:
        return Recipe(**run.info["recipe"])
    except TypeError as error:
        raise InputError(f"the record {run.path} is of a recipe that this code does not know ({error})") from error


def _where(made: dict) -> str:
    threads = f", {made['threads']} threads" if made["device"] == "cpu" else ""
    return f"{made['device']} ({made.get('cpu_capability', '')}{threads}), {made['precision']}"


def _compared(first: records.Run, again: records.Run) -> tuple[bool, str]:
    old, new = first.predictions(), again.predictions()
    losses = ["train_loss", "validation_loss"]
    if set(old) == set(new) and all(np.array_equal(old[name], new[name]) for name in old):
        if first.epochs[losses].equals(again.epochs[losses]):
            return True, "the same, bit for bit: curves, predictions and the selected epoch"
    if old["test_logits"].shape != new["test_logits"].shape:
        return False, "different: it has other test images or classes"
    off = float(np.abs(old["test_logits"] - new["test_logits"]).max())
    agree = float((old["test_logits"].argmax(1) == new["test_logits"].argmax(1)).mean())
    rates = [percent(run.info["test_accuracy"], 2) for run in (first, again)]
    curve = float((first.epochs[losses] - again.epochs[losses]).abs().to_numpy().max())
    return False, (
        f"different: losses by up to {curve:.2g} nats, test logits by up to {off:.2g}; {percent(agree, 2)} of the test "
        f"images are predicted alike, and the test accuracy was {rates[0]} and is {rates[1]}"
    )
