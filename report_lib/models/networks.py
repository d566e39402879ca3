"""A network with a new head: what of it is trained, and where its frozen part ends."""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from report_lib.config import NETWORKS, Config, derive_seed
from report_lib.files import InputError
from report_lib.models.weights import Weights, bare, load_weights, of_trunk

OPEN = ("features", "classifier")  # containers whose layers are stages of their own


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a network was built, which tells what a notebook has changed since."""

    weights: Weights  # where its trunk came from, without the tensors
    outline: str
    head: str  # the outline of its head


def origin_of(net: nn.Module) -> Origin:
    """How `net` was built. Raises InputError for one that `build` did not make."""
    try:
        return net.__dict__["origin"]
    except KeyError as error:
        raise InputError("the network is none that models.build made; change the layers of one that is") from error


def build(config: Config, classes: Sequence[str] | int, weights: Weights | None = None) -> nn.Module:
    """The network of `config`: a pretrained trunk (random, if there are no weights) and a new linear head.

    The head's bits depend on the seed alone, so that all approaches start from the same. `weights`: those that
    `config.weights` names, if they have been loaded already.
    """
    weights = weights or load_weights(config.weights, config.network)
    with torch.random.fork_rng(devices=[]):
        if weights.state is None:
            torch.manual_seed(derive_seed(config.seed, "trunk"))
            net = bare(config.network)
        else:
            with torch.device("meta"):  # nothing is drawn that is replaced at once
                net = bare(config.network)
            trunk = {name: value.clone() for name, value in of_trunk(config.network, weights.state).items()}
            net.load_state_dict(trunk, strict=False, assign=True)
            net.requires_grad_(True)
        set_head(net, config, classes if isinstance(classes, int) else len(classes))
    source = Weights(weights.name, weights.sha256, None)
    net.__dict__["origin"] = Origin(source, outline(net), outline(head_of(net, config)))
    return net


def head_of(net: nn.Module, config: Config) -> nn.Linear:
    """The layer that gives the logits: linear, unless a notebook has put another in its place.

    Raises InputError if there is none of that name.
    """
    name = NETWORKS[config.network].head
    try:
        return net.get_submodule(name)  # type: ignore[return-value]
    except AttributeError as error:
        raise InputError(
            f"the network has no layer {name}, the head of {NETWORKS[config.network].name}; a new one needs its name"
        ) from error


def width_below(head: nn.Module) -> int:
    """How many features a head takes: those of its first linear layer, 0 if a notebook's own head has none."""
    return next((module.in_features for module in head.modules() if isinstance(module, nn.Linear)), 0)


def set_head(net: nn.Module, config: Config, classes: int) -> None:
    """Replaces the head by a new one, whose weights the seed draws."""
    width = head_of(net, config).in_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "head"))
        net.set_submodule(NETWORKS[config.network].head, nn.Linear(width, classes))


def like(net: nn.Module, config: Config) -> nn.Module:
    """A copy of `net`, whatever a notebook has made of it, with the head that the seed of `config` draws, unless the
    notebook has made its own."""
    copied = copy.deepcopy(net)
    head = head_of(copied, config)
    if outline(head) != origin_of(net).head:
        return copied
    trained = [parameter.requires_grad for parameter in head.parameters()]
    set_head(copied, config, head.out_features)
    for parameter, flag in zip(head_of(copied, config).parameters(), trained, strict=True):
        parameter.requires_grad_(flag)
    return copied


def train_only(net: nn.Module, config: Config) -> None:
    """Freezes all of `net` but the part that the approach of `config` trains."""
    trained = trained_by(net, config)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)


def trained_by(net: nn.Module, config: Config) -> list[str]:
    """The parameters that the approach of `config` trains: those of a part of the network, and of all above it.

    Raises InputError if the network has no part of that name.
    """
    head_of(net, config)
    network, parts = NETWORKS[config.network], stages(net)
    names = [name for name, _ in parts]
    first = {"head": network.head, "last_block": network.last_block, "all": names[0]}[config.trains]
    if first not in names:
        raise InputError(f"the network has no layer {first}, where the last block of {network.name} starts")
    above = parts[names.index(first) :]
    return [f"{name}.{parameter}" for name, part in above for parameter, _ in part.named_parameters()]


def trained_names(net: nn.Module) -> list[str]:
    """The parameters that are trained."""
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


def stages(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """`net` as a sequence of named parts, the same modules, (B, 3, s, s) -> logits (B, classes) one after the other.

    torchvision's classifiers flatten what their pooling gives, unless a layer of their own does.
    """
    parts: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        parts += [(f"{name}.{at}", part) for at, part in child.named_children()] if name in OPEN else [(name, child)]
    if not any(isinstance(part, nn.Flatten) for _, part in parts):
        pooled = next(place for place, (name, _) in enumerate(parts) if name == "avgpool")
        parts.insert(pooled + 1, ("flatten", nn.Flatten()))
    return parts


def cut(net: nn.Module, dropout_on: bool = False) -> tuple[nn.Sequential, nn.Module]:
    """(the frozen layers, the layers above them), sharing their weights with `net`.

    The cut lies below the first stage that is trained; with `dropout_on`, below the first dropout, whose draws change
    from epoch to epoch. Without frozen layers the second part is `net` itself.
    """
    parts = [part for _, part in stages(net)]

    def changes(part: nn.Module) -> bool:
        draws = dropout_on and any(isinstance(module, nn.Dropout) for module in part.modules())
        return draws or any(parameter.requires_grad for parameter in part.parameters())

    place = next((at for at, part in enumerate(parts) if changes(part)), len(parts) - 1)
    above = net if place == 0 else parts[-1] if place == len(parts) - 1 else nn.Sequential(*parts[place:])
    return nn.Sequential(*parts[:place]), above


def set_mode(module: nn.Module, training: bool) -> None:
    """Training or eval mode; frozen batch normalisation stays in eval mode, so its running statistics do not move."""
    module.train(training)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()


def normalises(module: nn.Module) -> bool:
    """Whether batch normalisation is trained, which takes mean and deviation from the images of a step."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    return any(parameter.requires_grad for part in norms for parameter in part.parameters())


class Standardised(nn.Module):
    """A linear head on features (B, width) that are brought to mean 0 and standard deviation 1 first."""

    mean: Tensor
    std: Tensor
    head: nn.Linear

    def __init__(self, head: nn.Linear, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        return self.head((features - self.mean) / self.std)

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The linear layer that gives the same logits without standardising."""
        folded = copy.deepcopy(self.head)
        folded.weight.div_(self.std)
        folded.bias.sub_((folded.weight * self.mean).sum(1))  # no matrix product, which autocast would round
        return folded


def outline(net: nn.Module) -> str:
    """Tells a network from one that was changed: a hash of its layers and, of every tensor in it, of a sample and of
    the sum of its bits, which is the same on every device and any number of threads."""
    sha = hashlib.sha256(repr(net).encode())
    for name, value in net.state_dict().items():
        flat, each = value.detach().reshape(-1), 8 // value.element_size()
        rest = len(flat) // each * each
        flat = flat.clone() if flat.storage_offset() % each else flat
        bits = flat[:rest].view(torch.int64).sum().item()  # of whole numbers, so in any order
        sample = torch.cat([flat[:: max(1, len(flat) // 64)], flat[rest:]]).double().cpu()
        sha.update(f"{name} {tuple(value.shape)} {bits}".encode() + sample.numpy().tobytes())
    return sha.hexdigest()
