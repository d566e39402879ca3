"""How far a run has come, on disk: written whole after each slow epoch, read when the run is started again."""

import os
from pathlib import Path

import torch
from torch import nn


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: dict) -> None:
    """Replaces the checkpoint at `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}-{os.getpid()}")
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def resume(path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Loads the checkpoint at `path` into module and optimizer; returns its history, empty where there is none."""
    if path is None or not path.exists():
        return {}
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    return content["history"]
