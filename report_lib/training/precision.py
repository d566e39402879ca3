"""The precision in which a run is computed."""

import contextlib
import copy
from collections.abc import Mapping

import torch
from torch import nn


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the hardware multiplies in it (CUDA since Ampere, CPUs with AMX or AVX512_BF16), and
    float32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        abilities: Mapping = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our lower bound of torch
        fast = device.type == "cpu" and bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))
    return "bfloat16" if fast else "float32"


def autocast(precision: str, device: torch.device, keep: bool = False) -> contextlib.AbstractContextManager:
    """Mixed precision where asked for; weights, gradients and losses stay float32.

    `keep`: the converted weights serve all batches, as they may while nothing trains.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=keep)


def converted(layers: nn.Module, precision: str) -> nn.Module:
    """`layers`, or a copy whose weights are converted once and for all: what autocast does anew for every batch."""
    if precision == "float32":
        return layers
    copied = copy.deepcopy(layers)
    for module in copied.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return copied
