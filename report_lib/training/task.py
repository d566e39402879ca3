"""What is trained on what: the part of a network that learns, and the inputs that it sees."""

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from report_lib import models
from report_lib.config import Config, derive_seed
from report_lib.data import Images, augment, preprocess, split
from report_lib.files import InputError
from report_lib.training.code import code_hash
from report_lib.training.device import Place, as_file_name, own_random_state, place, room_for
from report_lib.training.features import Inputs, frozen_features


@dataclasses.dataclass(frozen=True)
class Samples:
    """Part of a data set, as a module takes it: `index` (N,) says which images; `labels` are of the whole set."""

    inputs: Inputs
    labels: Tensor
    index: Tensor


@dataclasses.dataclass
class Task:
    """The part of a network that is trained, and its samples."""

    module: nn.Module
    head: nn.Module  # of the network, within `module`
    training: Samples
    validation: Samples
    read: Callable[[str], tuple[Inputs, float]]  # "train" or "test" -> the module's inputs, the seconds they took
    features_seconds: float  # of the training images
    validation_features_seconds: float
    start_seconds: float = 0.0  # of what comes before the first step

    @property
    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The trained parameters (of the trunk, of the head)."""
        of_head = {id(parameter) for parameter in self.head.parameters()}
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return [p for p in trained if id(p) not in of_head], [p for p in trained if id(p) in of_head]


def prepare(net: nn.Module, images: Images, config: Config, place: Place) -> Task:
    """The task of training what of `net` needs gradients. What lies frozen below that is computed once for all images.

    Reads no test image, unless the config has the defect `select_on_test`.
    """
    below, module = models.cut(net, config.frozen_dropout)
    key = {
        "data": images.fingerprint,
        "weights": models.origin_of(net).weights.sha256 or f"random, seed {config.seed}",
        "layers": models.outline(below),
        "code": code_hash(),
        "torch": torch.__version__,
        "device": as_file_name(place.device),  # whose seconds are kept with the features
        "precision": place.precision,
        "image_size": config.image_size,
        "normalisation": config.normalisation,
    }

    def read(part: str) -> tuple[Inputs, float]:
        stored = getattr(images, part)
        seen = pictures(stored, config, place.device)
        return frozen_features(below, seen, len(stored), key | {"part": part}, place) if len(below) else (seen, 0.0)

    inputs, seconds = read("train")
    labels = images.train_labels.to(place.device)
    index, held_out = (part.to(place.device) for part in split(images.train_labels, config))
    training, validation = Samples(inputs, labels, index), Samples(inputs, labels, held_out)
    validation_seconds = seconds * len(held_out) / len(labels)
    if config.select_on_test:
        test_inputs, validation_seconds = read("test")
        validation = whole(test_inputs, images.test_labels, place.device)
    if config.flip or int(config.shift * max(images.train.shape[1:3])):  # else all pictures stay where they are
        moved = pictures(images.train, config, place.device, augmented=True)
        if len(below) and config.views > 1:
            moved, took = views(below, inputs, moved, len(labels), config, key, place)
            seconds += took
        elif len(below):
            moved = _through(below, moved)
        training = dataclasses.replace(training, inputs=moved)
    head = models.head_of(net, config)
    task = Task(module, head, training, validation, read, seconds * len(index) / len(labels), validation_seconds)
    if config.standardise:
        if not isinstance(head, nn.Linear):
            raise InputError("standardise is True, or start is 'probe', which need a head that is linear alone")
        clock = time.perf_counter()
        task.module = standardised(head, dataclasses.replace(training, inputs=inputs))  # of the pictures as they are
        task.start_seconds = time.perf_counter() - clock
    return task


def pictures(stored: Tensor, config: Config, device: torch.device, augmented: bool = False) -> Inputs:
    """Indices -> preprocessed pictures; the uint8 images themselves move to the device if it has room for them."""
    if room_for(stored.nbytes, device):
        stored = stored.to(device)

    def read(index: Tensor) -> Tensor:
        batch = stored[index.to(stored.device)].to(device)
        if augmented:
            batch = augment(batch, config.flip, config.shift)
        return preprocess(batch, config.image_size, config.normalisation)

    return read


def views(
    below: nn.Sequential, plain: Inputs, moved: Inputs, count: int, config: Config, key: dict, place: Place
) -> tuple[Inputs, float]:
    """(what gives frozen features of a view of each picture, drawn anew each time; the seconds they once took).

    The first of `config.views` is the picture as it is; the others are moved once, alike for every seed, and kept.
    """
    kept, seconds = [plain], 0.0
    for view in range(1, config.views):
        of_view = key | {"part": "train", "view": view, "flip": config.flip, "shift": config.shift}
        with own_random_state(place.device):
            torch.manual_seed(derive_seed(0, f"view {view}"))
            inputs, took = frozen_features(below, moved, count, of_view, place)
        kept.append(inputs)
        seconds += took

    def read(index: Tensor) -> Tensor:
        drawn = torch.randint(len(kept), (len(index),), device=index.device)
        rows = kept[0](index)
        for view, inputs in enumerate(kept[1:], 1):
            rows[drawn == view] = inputs(index[drawn == view])
        return rows

    return read, seconds


def _through(below: nn.Sequential, inputs: Inputs) -> Inputs:
    """What frozen layers make of pictures that are moved anew in every epoch."""

    def read(index: Tensor) -> Tensor:
        with torch.no_grad():
            return below.eval()(inputs(index)).float()

    return read


def whole(inputs: Inputs, labels: Tensor, device: torch.device) -> Samples:
    """All images of a part."""
    return Samples(inputs, labels.to(device), torch.arange(len(labels), device=device))


def standardised(head: nn.Linear, training: Samples) -> models.Standardised:
    """`head`, from zero, on features scaled by their mean and deviation over the training images.

    A deviation counts as a tenth of the features' mean one at least: what is almost never active is not blown up.
    """
    blocks = training.index.split(4096)
    mean = sum(training.inputs(block).sum(0) for block in blocks) / len(training.index)
    square = sum((training.inputs(block) - mean).square().sum(0) for block in blocks) / len(training.index)
    std = square.sqrt()  # type: ignore[union-attr]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return models.Standardised(head, mean, std.clamp(min=0.1 * std.mean()))  # type: ignore[arg-type]


def features_of(config: Config, images: Images, part: str = "train", device: str = "auto") -> Tensor:
    """What lies below the head of a linear probe `config`, float32 (N, width) on the CPU, of all images of `part`.

    They come from the cache, where training the probe has left them.
    """
    where = place(device, config.precision)
    net = models.build(config, images.classes).to(where.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    models.train_only(net, config)
    inputs, _ = prepare(net, images, config, where).read(part)
    return inputs(torch.arange(len(getattr(images, part)), device=where.device)).cpu()
