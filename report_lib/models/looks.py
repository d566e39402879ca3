"""A network looked at: its layers, the operations it takes, and how far training moved it."""

import copy
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from report_lib.models.networks import stages

MOST_LAYERS = 20  # that can be told apart in one figure


def summary(net: nn.Module, image_size: int) -> pd.DataFrame:
    """`net` layer by layer: name, kinds, shape of what comes out for one picture, parameters, how many are trained; all
    of it text, to be read. What has no parameters, such as a ReLU, stands with the layer that it follows, up to three
    kinds to a row, which a reader of the notebook sees whole."""
    rows: list[dict] = []
    batch = torch.empty(1, 3, image_size, image_size, device="meta")
    for name, part in stages(net):
        batch = weightless(part).eval()(batch)
        parameters = list(part.parameters())
        if parameters or not rows or len(rows[-1]["kind"]) == 3:
            rows.append({"layer": name, "kind": [], "parameters": 0, "trained": 0})
        rows[-1]["kind"].append(type(part).__name__)
        rows[-1]["output"] = " × ".join(map(str, batch.shape[1:]))
        rows[-1]["parameters"] += sum(parameter.numel() for parameter in parameters)
        rows[-1]["trained"] += sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    table = pd.DataFrame(rows).set_index("layer").rename_axis(None)
    table["kind"] = table["kind"].map(", ".join)
    for column in ("parameters", "trained"):
        table[column] = table[column].map("{:,}".format)
    return table[["kind", "output", "parameters", "trained"]]


def flops(net: nn.Module, image_size: int) -> tuple[int, int]:
    """Floating-point operations of one picture, (forward, backward), two for each multiply-add, as torch counts them.

    The backward pass is that of the layers which need gradients, on the meta device, so nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late: a quarter of a second, for triton

    counted = weightless(net).eval()
    with FlopCounterMode(display=False) as forward:
        loss = counted(torch.empty(1, 3, image_size, image_size, device="meta")).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def weightless(net: nn.Module) -> nn.Module:
    """A copy of `net` on the meta device: shapes, and which parameters need gradients, but no values."""
    copies: dict[int, Tensor] = {id(value): torch.empty_like(value, device="meta") for value in net.buffers()}
    for value in net.parameters():
        copies[id(value)] = nn.Parameter(torch.empty_like(value, device="meta"), value.requires_grad)
    return copy.deepcopy(net, copies)  # type: ignore[arg-type]


def layer_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """Layer -> length of what training added to its weights, over their length before, for the layers that both state
    dicts have in the same shape; of a deep network, these are the parts that hold the layers."""
    names = [name for name, value in before.items() if value.is_floating_point() and "running_" not in name]
    names = sorted((n for n in names if n in after and after[n].shape == before[n].shape), key=_place)
    depth = max((name.count(".") for name in names), default=0)
    while depth > 1 and len({_part(name, depth) for name in names}) > MOST_LAYERS:
        depth -= 1
    squares: dict[str, np.ndarray] = {}
    for name in names:
        both = _squares(_flat(after[name]), _flat(before[name]))
        squares[_part(name, depth)] = squares.get(_part(name, depth), 0.0) + both
    return {part: float((added / length) ** 0.5) for part, (added, length) in squares.items() if length}


def _flat(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().reshape(-1)


def _squares(after: np.ndarray, before: np.ndarray, step: int = 2**16) -> np.ndarray:
    """(sum of squares of after - before, that of before), float64 (2,); in pieces that stay in the processor's cache.

    Not a norm of torch's or numpy's, whose last digit depends on the number of threads.
    """
    both = np.zeros(2)
    for start in range(0, len(before), step):
        piece = before[start : start + step]
        both += [np.square(values).sum(dtype=np.float64) for values in (after[start : start + step] - piece, piece)]
    return both


def _place(name: str) -> tuple:
    """Where a parameter stands: files order names by letters; a classifier comes last, and layer 10 after layer 2."""
    return name.startswith("classifier"), [
        (part.isdigit(), int(part) if part.isdigit() else part) for part in name.split(".")
    ]


def _part(name: str, depth: int) -> str:
    """The layer that a parameter belongs to, or the part that holds that layer, at most `depth` names long."""
    return ".".join(name.split(".")[:-1][:depth])
