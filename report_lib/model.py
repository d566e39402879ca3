"""AlexNet, its weights, and what of it is frozen."""

import copy
import dataclasses
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import AlexNet, AlexNet_Weights, alexnet

from report_lib.recipe import InputError, Recipe, derive_seed, file_sha256, locate

EMBEDDED = Path(__file__).parent / "weights" / "alexnet_tiny_imagenet.safetensors"
EMBEDDED_SHA256 = "06719e46f3b58cb3307e9106f07367e3718fb83eb1af948e5f8792c809c37f0a"  # as its CARD.md says

HEAD = 6  # classifier[6] is AlexNet's last layer; everything before it is the trunk


@dataclasses.dataclass(frozen=True)
class Weights:
    """A state dict of torchvision's AlexNet (float32), or None for random weights, and where it came from."""

    name: str
    sha256: str | None
    state: dict[str, Tensor] | None


def load_weights(source: str) -> Weights:
    """The weights named `source`: imagenet, embedded, none, or a .safetensors or .pth file.

    No file is ever unpickled freely. Raises InputError if a file is damaged or does not fit AlexNet.
    """
    if source == "none":
        return Weights("none (random initialisation)", None, None)
    if source == "embedded":
        if file_sha256(EMBEDDED) != EMBEDDED_SHA256:
            raise InputError(f"weights is 'embedded', whose file {EMBEDDED} is damaged; restore it from the repository")
        return Weights("AlexNet, Tiny ImageNet (embedded)", EMBEDDED_SHA256, compose(_safetensors(EMBEDDED)))
    path = _imagenet_file() if source == "imagenet" else locate(source)
    name = "AlexNet, ImageNet-1k V1 (torchvision)" if source == "imagenet" else path.name
    state = _fitting(_read_state(path), path)
    return Weights(name, file_sha256(path), state)


def build(weights: Weights, num_classes: int, seed: int) -> AlexNet:
    """AlexNet with pretrained trunk (random, if there are no weights) and a new `Linear(4096, num_classes)` head."""
    with torch.random.fork_rng(devices=[]):
        if weights.state is None:
            torch.manual_seed(derive_seed(seed, "trunk"))
            net = alexnet()
        else:
            with torch.device("meta"):  # nothing is drawn that is replaced at once
                net = alexnet()
            trunk = {n: value.clone() for n, value in weights.state.items() if not _of_head(n)}
            net.load_state_dict(trunk, strict=False, assign=True)
            net.requires_grad_(True)
        torch.manual_seed(derive_seed(seed, "head"))
        net.classifier[HEAD] = nn.Linear(4096, num_classes)
    return net


def freeze_trunk(net: AlexNet) -> None:
    """Leaves the head as the only part that is trained."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(_of_head(name))


def cut(net: AlexNet, frozen_dropout: bool = False) -> tuple[nn.Module, nn.Module]:
    """(what never changes while the trunk is frozen, the layers above it), sharing their weights with `net`.

    The cut is below the head, (B, 3, s, s) -> (B, 4096) -> logits (B, classes); with `frozen_dropout` it is below the
    first dropout, whose draws change from epoch to epoch: (B, 3, s, s) -> (B, 9216) -> logits.
    """
    convolutions = [net.features, net.avgpool, nn.Flatten()]
    if frozen_dropout:
        return nn.Sequential(*convolutions), net.classifier
    return nn.Sequential(*convolutions, *net.classifier[:HEAD]), net.classifier[HEAD]


class Standardised(nn.Module):
    """A linear head on features (B, 4096) that are brought to mean 0 and standard deviation 1 first."""

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


def optimized(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for what of `module` needs gradients; the trunk of a whole network has its own rate."""
    groups = []
    for of_head, rate in ((False, recipe.learning_rate * recipe.trunk_rate), (True, recipe.learning_rate)):
        parameters = [p for name, p in module.named_parameters() if p.requires_grad and _of_head(name) == of_head]
        if parameters:
            groups.append({"params": parameters, "lr": rate, "initial_lr": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)  # Adam, where there is no decay


def flops(net: AlexNet, image_size: int) -> tuple[int, int]:
    """Floating-point operations of one picture, (forward, backward), two for each multiply-add, as torch counts them.

    The backward pass is that of the layers which need gradients, on the meta device, so nothing is computed.
    """
    counted = copy.deepcopy(net).to("meta")
    for given, copied in zip(net.parameters(), counted.parameters(), strict=True):
        copied.requires_grad_(given.requires_grad)
    with FlopCounterMode(display=False) as forward:
        loss = counted(torch.empty(1, 3, image_size, image_size, device="meta")).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def compose(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiplies out layers stored as `weight_up @ weight_down`, and returns everything in float32."""
    whole = {name: value.float() for name, value in state.items()}
    for up in [name for name in whole if name.endswith(".weight_up")]:
        layer = up.removesuffix("_up")
        whole[layer] = whole.pop(up) @ whole.pop(f"{layer}_down")
    return whole


def _of_head(name: str) -> bool:
    return name.startswith(f"classifier.{HEAD}.")


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
        AttributeError,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights is {str(path)!r}, which is no readable .safetensors or weights-only .pth file ({reason})"
        ) from error
    named = isinstance(state, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items())
    if not named:
        raise InputError(f"weights is {str(path)!r}, which holds no state dict (layer name -> tensor) of AlexNet")
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in `path`; ValueError if it is damaged. A node that trains from a .pth does without the package."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"weights is {path.name!r}, which the package safetensors reads; install it") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _fitting(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The composed state, if its trunk is AlexNet's; a head may be missing or of any size, since it is replaced."""
    try:
        state = compose(state)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"weights is {str(path)!r}, whose factored layers do not fit together ({error})") from error
    with torch.device("meta"):
        expected = {name: value.shape for name, value in alexnet().state_dict().items() if not _of_head(name)}
    given = {name: value.shape for name, value in state.items() if not _of_head(name)}
    problems = []
    if missing := sorted(expected.keys() - given.keys()):
        problems.append(f"missing keys: {', '.join(missing)}")
    if unexpected := sorted(given.keys() - expected.keys()):
        problems.append(f"unexpected keys: {', '.join(unexpected)}")
    wrong = [name for name in expected.keys() & given.keys() if expected[name] != given[name]]
    problems += [f"{name} is {tuple(given[name])}, not {tuple(expected[name])}" for name in sorted(wrong)]
    if problems:
        raise InputError(f"weights is {str(path)!r}, which does not fit AlexNet ({'; '.join(problems)})")
    return state


def _imagenet_file() -> Path:
    """torchvision's hash-checked download, made once into torch's hub folder."""
    url = AlexNet_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        if not path.exists():
            AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        wanted = path.stem.rsplit("-", 1)[-1]
        if not file_sha256(path).startswith(wanted):
            raise InputError(f"weights is 'imagenet', whose file {path} is damaged; remove it to download it again")
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights is 'imagenet', which could not be downloaded ({error}); connect once, or copy {path.name} to "
            f"{path.parent}, or give WEIGHTS=embedded or WEIGHTS=<file>"
        ) from error
    return path
