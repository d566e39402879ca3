"""A recorded run, made again: did it come out the same, and if not, how far off?"""

import tempfile
from pathlib import Path

import numpy as np

from report_lib import data, models
from report_lib.files import CACHE, InputError, check_writable, folder
from report_lib.runs.store import Run, load
from report_lib.runs.train import run as make_run
from report_lib.training import code_hash


def verify(record: Path, device: str = "auto", cache: str = "") -> tuple[bool, str]:
    """(whether the run in the folder `record` came out the same, bit for bit; a sentence on each thing that differs).

    The run is made again in a store of its own, frozen features included, and nothing of it is kept. Raises InputError
    if there is no such run, or if it is one that a notebook had changed.
    """
    first = load(record)
    made, config = first.info["provenance"], first.config
    if first.info["modified"]:
        raise InputError(
            f"{record.name} was changed in a notebook ({first.info['modified']}); that alone can repeat it"
        )
    notes = [f"{first.path.name}, made {made['finished'][:16]} on {_where(made)}"]
    there = {"data": data.load(config, cache=cache).fingerprint,
             "weights": models.weights_sha256(config.weights, config.network)}  # fmt: skip
    for what, key in (("data", "fingerprint"), ("weights", "sha256")):
        if first.info[what][key] != there[what]:
            raise InputError(f"{what} is {getattr(config, what)!r}, which is no longer what {record} was made with")
    kept = folder(cache, *CACHE)
    check_writable(kept, "cache")
    # The features lie in the cache, whose disk has room for them; what a kill leaves of them is swept there.
    with tempfile.TemporaryDirectory() as store, tempfile.TemporaryDirectory(prefix=".features-", dir=kept) as anew:
        again = make_run(config, store, cache, device, features=anew)
        now = again.info["provenance"]
        notes += [f"this time on {_where(now)}"] * (_where(made) != _where(now))
        if made["code"] != code_hash():
            notes.append(f"the code of commit {(made['commit'] or 'unknown')[:12]} has changed since")
        changed = made["packages"].items() - now["packages"].items()
        notes += [f"{name} was {old} and is {now['packages'].get(name)}" for name, old in sorted(changed)]
        same, outcome = _compared(first, again)
    return same, "\n".join([*notes, outcome])


def _where(made: dict) -> str:
    threads = f", {made['threads']} threads" if made["device"] == "cpu" else ""
    return f"{made['device']} ({made.get('cpu_capability', '')}{threads}), {made['precision']}"


def _compared(first: Run, again: Run) -> tuple[bool, str]:
    old, new, losses = first.predictions, again.predictions, ["train_loss", "validation_loss"]
    same = old.keys() == new.keys() and all(np.array_equal(old[name], new[name]) for name in old)
    if same and first.epochs[losses].equals(again.epochs[losses]):
        return True, "the same, bit for bit: curves, predictions and the selected epoch"
    was, now = old["test_logits"], new["test_logits"]
    agree = float((was.argmax(1) == now.argmax(1)).mean())
    before, after = (f"{100 * run.info['test_accuracy']:.2f} %" for run in (first, again))
    curve = float((first.epochs[losses] - again.epochs[losses]).abs().to_numpy().max())
    return False, (
        f"different: losses by up to {curve:.2g} nats, test logits by up to {float(np.abs(was - now).max()):.2g}; "
        f"{100 * agree:.2f} % of the test images are predicted alike, and the test accuracy was {before} and is {after}"
    )
