"""Trained networks, to be used: on new pictures, or looked into."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from report_lib import data, models
from report_lib.config import Config
from report_lib.files import InputError, digest, locate
from report_lib.runs.store import Run

MOST_LAYERS = 20  # that can be told apart in one figure


def load_model(run: Run) -> nn.Module:
    """The network of a finished run, as it was tested, in eval mode, on the CPU: (B, 3, s, s) -> logits (B, classes).

    Its images need not be there any more, nor, where all of it was trained, the pretrained weights.
    Raises InputError if the study did not keep its weights, or the pretrained ones are needed and no longer there.
    """
    tensors, config = run.tensors(), _config(run)
    if tensors is None:
        raise InputError(
            f"the record {run.path} keeps no weights (parameter keep_weights is 'first' or 'none'); train it again "
            "with KEEP_WEIGHTS=all and another store"
        )
    with torch.device("meta"):
        net = models.bare(config.network)
    models.set_head(net, config, len(run.classes))
    if run.info["modified"] and run.info["network"].get("layers") != digest(repr(net)):
        raise InputError(
            f"the layers of {run.path.name} were changed in a notebook; only its code can build them again"
        )
    if net.state_dict().keys() > tensors.keys():
        net = models.build(config, len(run.classes), _weights(run))
    net.load_state_dict(tensors, strict=False, assign=True)
    return net.requires_grad_(False).eval()


def _config(run: Run) -> Config:
    """Its config, but for where its images and weights lay."""
    return Config(**(run.info["config"] | {"data": "digits", "weights": "none"}))


def _weights(run: Run) -> models.Weights:
    """The pretrained weights below what was trained."""
    source, network = run.info["config"]["weights"], run.info["config"]["network"]
    try:
        sha256 = models.weights_sha256(source, network)
        if sha256 == run.info["weights"]["sha256"]:
            return pretrained(source, network, sha256)
    except OSError as error:
        raise InputError(
            f"weights is {source!r}, which cannot be read ({error.strerror}); {run.path} needs it"
        ) from error
    raise InputError(f"weights is {source!r}, which is no longer what {run.path.name} was trained from")


@functools.lru_cache(maxsize=1)
def pretrained(source: str, network: str, sha256: str | None) -> models.Weights:
    """The weights named `source`, whose file has this sha256: what multiplying out their factors takes, each run of a
    study would pay again, and a probe costs little more. Whoever changes them takes a copy."""
    return models.load_weights(source, network)


def layer_changes(run: Run) -> dict[str, float]:
    """Layer -> length of what training added to its weights, over their length before. The head starts anew and is not
    among them; of a deep network, these are the parts that hold the layers. Empty where nothing below the head was
    trained, or the record keeps no weights, or the trunk was random before.

    Raises InputError if the pretrained weights are no longer there.
    """
    config, random = _config(run), run.info["weights"]["sha256"] is None
    if config.trains == "head" or random or (after := run.tensors()) is None:
        return {}
    trunk = models.of_trunk(config.network, _weights(run).state or {})
    names = [name for name, value in trunk.items() if value.is_floating_point() and "running_" not in name]
    names = sorted((n for n in names if n in after and after[n].shape == trunk[n].shape), key=_place)
    depth = max((name.count(".") for name in names), default=0)
    while depth > 1 and len({_part(name, depth) for name in names}) > MOST_LAYERS:
        depth -= 1
    squares: dict[str, np.ndarray] = {}
    for name in names:
        both = _squares(after[name].numpy().reshape(-1), trunk[name].numpy().reshape(-1))
        squares[_part(name, depth)] = squares.get(_part(name, depth), 0.0) + both
    return {part: float((added / before) ** 0.5) for part, (added, before) in squares.items() if before}


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


def predict(run: Run, paths: Sequence[str | Path]) -> list[dict]:
    """What a run's network makes of image files: for each, its path and the classes with their probabilities, the
    likeliest first. A relative path starts at the project. Pictures are brought to the size that the training images
    were stored in, and on as those were. Raises InputError for what is no image."""
    return list(map(predictor(run), paths))


def predictor(run: Run) -> Callable[[str | Path], dict]:
    """What `predict` asks for each image; the network is read once."""
    net, config = load_model(run), _config(run)
    height, width = run.info["data"]["stored_size"]
    span = run.info["data"]["facts"].get("range")

    @torch.inference_mode()
    def answer(path: str | Path) -> dict:
        pixels = torch.from_numpy(np.array(data.read_picture(locate(str(path)), (height, width), span)))
        logits = net(data.preprocess(pixels[None], config.image_size, config.normalisation))[0]
        order = logits.argsort(descending=True, stable=True).tolist()
        shares = logits.double().softmax(0).tolist()
        classes = [{"class": run.classes[at], "probability": shares[at]} for at in order]
        return {"image": str(path), "classes": classes}

    return answer
