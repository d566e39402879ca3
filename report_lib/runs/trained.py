"""Trained networks, to be used: on new pictures, or looked into."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from report_lib import data, models
from report_lib.files import InputError
from report_lib.runs.store import Run


def load_model(run: Run) -> nn.Module:
    """The network of a finished run, as it was tested, in eval mode, on the CPU: (B, 3, s, s) -> logits (B, classes).

    Raises InputError if the study did not keep its weights, or the pretrained ones are no longer there.
    """
    tensors, config = run.tensors(), run.config
    if tensors is None:
        raise InputError(
            f"the record {run.path} keeps no weights (parameter keep_weights is 'first' or 'none'); train it again "
            "with KEEP_WEIGHTS=all and another store"
        )
    weights = models.load_weights(config.weights, config.network)
    if weights.sha256 != run.info["weights"]["sha256"]:
        raise InputError(f"weights is {config.weights!r}, which is no longer what {run.path.name} was trained from")
    net = models.build(config, len(run.classes), weights)
    try:
        unknown = net.load_state_dict(tensors, strict=False).unexpected_keys
    except RuntimeError:
        unknown = ["of another shape"]
    if unknown:
        raise InputError(
            f"the layers of {run.path.name} were changed in a notebook; only its code can build them again"
        )
    return net.requires_grad_(False).eval()


@torch.inference_mode()
def predict(run: Run, paths: Sequence[str | Path]) -> list[dict]:
    """What a run's network makes of image files: for each, its path and the classes with their probabilities, the
    likeliest first. Pictures are brought to the size that the training images were stored in, and on as those were."""
    net, config = load_model(run), run.config
    height, width = run.info["data"]["stored_size"]
    span = run.info["data"]["facts"].get("range")
    answers = []
    for path in paths:
        pixels = torch.from_numpy(np.array(data.read_picture(path, (height, width), span)))
        logits = net(data.preprocess(pixels[None], config.image_size, config.normalisation))[0]
        order = logits.argsort(descending=True, stable=True).tolist()
        shares = logits.double().softmax(0).tolist()
        classes = [{"class": run.classes[at], "probability": shares[at]} for at in order]
        answers.append({"image": str(path), "classes": classes})
    return answers
