"""How far a run has come, on disk: written whole after each slow epoch, read when the run is started again."""

import copy
import hashlib
import io
import os
import pickle
import sys
from pathlib import Path

import torch
from torch import nn


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: dict) -> None:
    """Replaces the checkpoint at `path` in one step: the sha256 of what follows, and what follows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    temporary = path.with_name(f"{path.name}-unfinished")  # one name, for a run is trained by one process at a time
    try:
        with temporary.open("w+b") as file:
            file.write(bytes(32))
            torch.save(content, file)
            file.seek(32)
            sha = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
            file.seek(0)
            file.write(sha.digest())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # to lose a checkpoint is no reason to lose the run
        temporary.unlink(missing_ok=True)
        print(f"no checkpoint could be written to {path} ({error}); training goes on without", file=sys.stderr)


def resume(path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Loads the checkpoint at `path` into module and optimizer; returns its history, empty where there is none.

    One that is damaged is removed, and says so: the run then starts anew.
    """
    if path is None or not path.exists():
        return {}
    stored = path.read_bytes()
    before = copy.deepcopy(module.state_dict())
    try:
        if hashlib.sha256(memoryview(stored)[32:]).digest() != stored[:32]:
            raise ValueError("its checksum is another")
        content = torch.load(io.BytesIO(memoryview(stored)[32:]), map_location="cpu", weights_only=True)
        module.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        module.load_state_dict(before)
        print(f"the checkpoint {path} is damaged ({error}) and is removed; this run starts anew", file=sys.stderr)
        path.unlink(missing_ok=True)
        return {}
    return content["history"]
