"""A network looked at: its layers, and the operations it takes."""

import copy

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from report_lib.models.networks import stages


def summary(net: nn.Module, image_size: int) -> pd.DataFrame:
    """`net` layer by layer: name, kind, shape of what comes out for one picture, parameters, how many are trained; all
    of it text, to be read."""
    rows, batch = [], torch.empty(1, 3, image_size, image_size, device="meta")
    for name, part in stages(net):
        batch = copy.deepcopy(part).to("meta").eval()(batch)
        parameters = list(part.parameters())
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        shape = " × ".join(map(str, batch.shape[1:]))
        count = sum(parameter.numel() for parameter in parameters)
        rows.append((name, type(part).__name__, shape, f"{count:,}", f"{trained:,}"))
    return (
        pd.DataFrame(rows, columns=["layer", "kind", "output", "parameters", "trained"])
        .set_index("layer")
        .rename_axis(None)
    )


def flops(net: nn.Module, image_size: int) -> tuple[int, int]:
    """Floating-point operations of one picture, (forward, backward), two for each multiply-add, as torch counts them.

    The backward pass is that of the layers which need gradients, on the meta device, so nothing is computed.
    """
    counted = copy.deepcopy(net).to("meta").eval()
    for given, copied in zip(net.parameters(), counted.parameters(), strict=True):
        copied.requires_grad_(given.requires_grad)
    with FlopCounterMode(display=False) as forward:
        loss = counted(torch.empty(1, 3, image_size, image_size, device="meta")).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()
