"""Pretrained weights: the embedded AlexNet, torchvision's ImageNet weights of any network, or a file."""

import dataclasses
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from report_lib.config import FIELDS, NETWORKS
from report_lib.files import InputError, file_sha256, locate

EMBEDDED = Path(__file__).parents[1] / "weights" / "alexnet_tiny_imagenet.safetensors"
EMBEDDED_SHA256 = "1678c61b24bb53f5946f3e867b3938b7d35e2bcac0ed9c082e49fe38fad96da0"  # as its CARD.md says
NAMES = FIELDS["weights"].metadata["allowed"].names


@dataclasses.dataclass(frozen=True)
class Weights:
    """A state dict of a network (float32), or None for random weights, and where it came from."""

    name: str
    sha256: str | None
    state: dict[str, Tensor] | None


def load_weights(source: str, network: str = "alexnet") -> Weights:
    """The weights named `source`: imagenet, embedded, none, or a .safetensors or .pth file.

    No file is ever unpickled freely. Raises InputError if a file is damaged or does not fit the network.
    """
    sha256 = weights_sha256(source, network)
    if source == "none":
        return Weights("none (random initialisation)", None, None)
    if source == "embedded":
        if file_sha256(EMBEDDED) != sha256:
            raise InputError(f"weights is 'embedded', whose file {EMBEDDED} is damaged; restore it from the repository")
        return Weights("AlexNet, Tiny ImageNet (embedded)", sha256, compose(load_file(EMBEDDED)))
    path = _imagenet_file(network) if source == "imagenet" else locate(source)
    name = f"{NETWORKS[network].name}, ImageNet-1k V1 (torchvision)" if source == "imagenet" else path.name
    return Weights(name, sha256, _fitting(_read_state(path, network), path, network))


def weights_sha256(source: str, network: str = "alexnet") -> str | None:
    """sha256 of the weights' file, None for random weights; the embedded file's is known, and not looked at.

    Raises InputError if there is no such file for this network.
    """
    if source == "none":
        return None
    if source == "embedded":
        if network != "alexnet":
            raise InputError(
                f"weights is 'embedded', which is an AlexNet; for {network} allowed are imagenet, none or the path of "
                "a state dict"
            )
        return EMBEDDED_SHA256
    return file_sha256(_imagenet_file(network) if source == "imagenet" else locate(source))


def bare(network: str) -> nn.Module:
    """The network as torchvision makes it, with random weights."""
    from torchvision.models import get_model  # late: it takes 2 s, and finished runs are read without it

    return get_model(network)


def compose(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiplies out layers stored as `weight_up @ weight_down`, and returns everything else in float32, too."""
    whole = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    for up in [name for name in whole if name.endswith(".weight_up")]:
        layer = up.removesuffix("_up")
        whole[layer] = whole.pop(up) @ whole.pop(f"{layer}_down")
    return whole


def of_trunk(network: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a state dict belongs to the trunk: all but the head, which a new one replaces."""
    return {name: value for name, value in state.items() if not name.startswith(f"{NETWORKS[network].head}.")}


def _read_state(path: Path, network: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            SafetensorError) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights is {str(path)!r}, which is no readable .safetensors or weights-only .pth file ({reason})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items()):
        raise InputError(
            f"weights is {str(path)!r}, which holds no state dict (layer name -> tensor) of {NETWORKS[network].name}"
        )
    return state


def _fitting(state: dict[str, Tensor], path: Path, network: str) -> dict[str, Tensor]:
    """The composed state, if its trunk is the network's; a head may be missing or of any size, since it is replaced."""
    try:
        state = compose(state)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"weights is {str(path)!r}, whose factored layers do not fit together ({error})") from error
    with torch.device("meta"):
        expected = of_trunk(network, bare(network).state_dict())
    for name in expected:
        if name.endswith(".num_batches_tracked"):  # which weights from before 2018 lack, and nothing here reads
            state.setdefault(name, torch.tensor(0))
    given = of_trunk(network, state)
    problems = []
    if missing := sorted(expected.keys() - given.keys()):
        problems.append(f"missing keys: {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}")
    if unexpected := sorted(given.keys() - expected.keys()):
        problems.append(f"unexpected keys: {', '.join(unexpected[:5])}{', ...' * (len(unexpected) > 5)}")
    wrong = [name for name in expected.keys() & given.keys() if expected[name].shape != given[name].shape]
    problems += [f"{name} is {tuple(given[name].shape)}, not {tuple(expected[name].shape)}" for name in sorted(wrong)]
    if problems:
        raise InputError(
            f"weights is {str(path)!r}, which does not fit {NETWORKS[network].name} ({'; '.join(problems)})"
        )
    return state


def _imagenet_file(network: str) -> Path:
    """torchvision's hash-checked download, made once into torch's hub folder."""
    from torchvision.models import get_model_weights

    weights = next(iter(get_model_weights(network)))
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        if not path.exists():
            weights.get_state_dict(progress=True, check_hash=True)
        if not file_sha256(path).startswith(path.stem.rsplit("-", 1)[-1]):
            raise InputError(f"weights is 'imagenet', whose file {path} is damaged; remove it to download it again")
    except (OSError, RuntimeError) as error:
        others = "WEIGHTS=embedded or " if network == "alexnet" else "WEIGHTS=none or "
        raise InputError(
            f"weights is 'imagenet', which could not be downloaded ({error}); connect once, or copy {path.name} to "
            f"{path.parent}, or give {others}WEIGHTS=<file>"
        ) from error
    return path
