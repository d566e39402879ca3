"""What a device can do at best: floating-point operations a second, by precision and kind of work.

Libraries differ in what they are good at (on some processors convolutions outrun matrix products), so a share of the
best rate is taken of the best of all kinds and shapes, those of the network's own layers included: it cannot exceed 1,
since what a run reaches is an average over such work.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from report_lib.training.device import wait_for

REPEATS = 6
BATCH = 128
SIDES = (1024, 2048, 4096)  # of square matrices


def rates(net: nn.Module, size: int, device: torch.device, precision: str) -> dict[str, dict[str, float]]:
    """Precision -> kind of work -> the best rate over shapes and repeats, in operations a second: of float32, and of
    `precision`, in which we train there. Others are not tried: a CPU that has to imitate bfloat16 takes minutes."""
    return {name: best(net, size, device, getattr(torch, name)) for name in dict.fromkeys(("float32", precision))}


def best(net: nn.Module, size: int, device: torch.device, kind: torch.dtype) -> dict[str, float]:
    found = {"matrix product": 0.0, "convolution": 0.0, "linear layer": 0.0}
    for side in SIDES:
        a = torch.randn(side, side, device=device, dtype=kind)
        found["matrix product"] = max(found["matrix product"], rate(lambda: a @ a, 2 * side**3, device))  # noqa: B023
    for layer, inputs in layers(net, size, device):
        weight, x = layer.weight.detach().to(kind), inputs.to(kind)  # type: ignore[operator]
        if isinstance(layer, nn.Conv2d):
            work: Callable = lambda x, w, of=layer: F.conv2d(x, w, None, of.stride, of.padding, of.dilation, of.groups)  # noqa: E731
            name = "convolution"
            weight = weight.to(memory_format=torch.channels_last)
        else:
            work, name = F.linear, "linear layer"
        out = work(x, weight)
        flops = 2 * out[:, :1].numel() * weight.numel() if name == "convolution" else 2 * len(x) * weight.numel()
        found[name] = max(found[name], rate(lambda: work(x, weight), flops, device))  # noqa: B023
        x.requires_grad_(True)
        weight.requires_grad_(True)
        gradient = torch.ones_like(out)

        def both() -> None:
            torch.autograd.grad(work(x, weight), (x, weight), gradient)  # noqa: B023

        found[name] = max(found[name], rate(both, 3 * flops, device))
    return found


def layers(net: nn.Module, size: int, device: torch.device) -> list[tuple[nn.Module, Tensor]]:
    """The network's convolutions and linear layers, each with what it takes of a batch of pictures."""
    seen: list[tuple[nn.Module, Tensor]] = []
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: seen.append((module, inputs[0].detach())))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        net(torch.randn(BATCH, 3, size, size, device=device).to(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return seen


def rate(work: Callable, flops: int, device: torch.device) -> float:
    """The best of some repeats, after one to warm up, in operations a second."""
    work()
    fastest = float("inf")
    for _ in range(REPEATS):
        wait_for(device)
        clock = time.perf_counter()
        work()
        wait_for(device)
        fastest = min(fastest, time.perf_counter() - clock)
    return flops / fastest
