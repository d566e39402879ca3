"""How far a run has come, on disk: written whole after each slow epoch, read when the run is started again."""

import copy
import hashlib
import io
import sys
from pathlib import Path

import torch
from torch import nn

from report_lib.files import replacing, sweep


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
        _let_through(error.__context__)
        print(f"no checkpoint could be written to {path} ({error}); training goes on without", file=sys.stderr)


def _let_through(cause: BaseException | None) -> None:
    """Raises the interruption that caused an error: torch's writer, closed half-way, hides it behind one of its own."""
    while cause is not None:
        if not isinstance(cause, Exception):
            raise cause
        cause = cause.__context__


def resume(path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Loads the checkpoint at `path` into module and optimizer; returns its history, empty where there is none.

    One that is damaged, or of another module, is removed, and that is said: the run then starts anew.
    """
    if path is None or not path.is_file():
        return {}
    before = copy.deepcopy(module.state_dict())
    try:
        stored = memoryview(path.read_bytes())
        if hashlib.sha256(stored[32:]).digest() != stored[:32]:
            raise ValueError("its checksum is another")
        content = torch.load(io.BytesIO(stored[32:]), map_location="cpu", weights_only=True)
        module.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
        return content["history"]
    except Exception as error:  # whatever torch makes of it
        module.load_state_dict(before)
        reason = " ".join(str(error).split())[:200]
        print(f"the checkpoint {path} is damaged ({reason}) and is removed; this run starts anew", file=sys.stderr)
        path.unlink()
        return {}
