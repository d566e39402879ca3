"""How far a run has come, on disk: written whole after each slow epoch, read when the run is started again."""

import copy
import hashlib
import io
import os
import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from report_lib.files import put_aside, replacing, sweep

HISTORY = {"epochs": list, "selected": int, "state": dict, "validation_logits": Tensor}  # of `loop.History`


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: dict) -> None:
    """Replaces the checkpoint at `path` in one step: the sha256 of what follows, and what follows.

    Where it cannot be written (a full disk), that is said on stderr and the old one stays: training goes on.
    """
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    unfinished = f"{path.name}-unfinished-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f"{unfinished}*", 0)  # of killed predecessors, for one process at a time trains a run
        with replacing(path, unfinished) as file:
            file.write(bytes(32))
            torch.save(content, file)
            file.seek(32)
            sha = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
            file.seek(0)
            file.write(sha.digest())
    except (OSError, RuntimeError) as error:  # to lose a checkpoint is no reason to lose the run
        print(f"no checkpoint could be written to {path} ({error}); training goes on without", file=sys.stderr)


def resume(path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Loads the checkpoint at `path` into module and optimizer; returns its history, empty where there is none.

    One that is damaged, or holds anything else, is put out of the way, and says so: the run then starts anew.
    """
    if path is None or not os.path.lexists(path):
        return {}
    before = copy.deepcopy(module.state_dict())
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        stored = path.read_bytes()
        if hashlib.sha256(memoryview(stored)[32:]).digest() != stored[:32]:
            raise ValueError("its checksum is another")
        content = torch.load(io.BytesIO(memoryview(stored)[32:]), map_location="cpu", weights_only=True)
        history = _history(content["history"], module)
        module.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
    except (OSError, ValueError, RuntimeError, EOFError, LookupError, TypeError, AttributeError,
            pickle.UnpicklingError) as error:  # fmt: skip
        module.load_state_dict(before)
        reason = "it holds no checkpoint" if isinstance(error, pickle.UnpicklingError) else " ".join(str(error).split())
        print(
            f"the checkpoint {path} is damaged ({reason[:200]}) and is removed; this run starts anew", file=sys.stderr
        )
        if path.is_file() or path.is_symlink():
            path.unlink()
        else:  # a folder, say, which may hold anything
            put_aside(path)
        return {}
    return history


def _history(stored: dict, module: nn.Module) -> dict:
    """`stored`, if `loop.train` can go on from it; ValueError, TypeError or AttributeError if not."""
    if stored.keys() != HISTORY.keys() or not all(isinstance(stored[name], kind) for name, kind in HISTORY.items()):
        raise ValueError("its history is none")
    numbers = [epoch["epoch"] for epoch in stored["epochs"]]
    if numbers != list(range(1, len(numbers) + 1)) or stored["selected"] not in numbers:
        raise ValueError("its epochs are none")
    if stored["state"].keys() != module.state_dict().keys():
        raise ValueError("its selected epoch is of another network")
    return stored
