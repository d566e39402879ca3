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
from report_lib.runs.store import Run, load


def load_model(run: Run | str | Path) -> nn.Module:
    """The network of a finished run or its folder, as it was tested, in eval mode, on the CPU: (B, 3, s, s) -> logits
    (B, classes).

    Its images need not be there any more, nor, where all of it was trained, the pretrained weights.
    Raises InputError if the study did not keep its weights, or the pretrained ones are needed and no longer there.
    """
    run = run if isinstance(run, Run) else load(locate(str(run)))
    tensors, config = run.tensors(), _config(run)
    if tensors is None:
        raise InputError(
            f"the record {run.path} keeps no weights (parameter keep_weights is 'first' or 'none'); train it again "
            "with KEEP_WEIGHTS=all and another store (RUNS=folder)"
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
