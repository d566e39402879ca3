"""Images as tensors, the split, and batches made on the compute device: the code that decides a run's outcome.

Pictures never leave uint8 until a batch of them is on the device, where it is normalised and enlarged.
"""

import dataclasses
import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from report_lib.config import Config, derive_seed
from report_lib.files import InputError

# (mean, standard deviation) of the channels, RGB in [0, 1].
NORMALISATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of torchvision's weights, and of the embedded ones
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set. Pictures are uint8 (N, height, width, 3), labels int64 (N,) indices into `classes`."""

    name: str
    classes: tuple[str, ...]
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    fingerprint: str  # sha256 of pictures, labels and class names
    # What became of the source's files: "left_out" {kind: count}, "copies" of training images among the test images,
    # "range" [low, high] of the stored values that became 0 to 255 or None, "notes" [sentences].
    facts: dict = dataclasses.field(default_factory=dict)


def check(images: Images, config: Config) -> None:
    """Raises InputError if `config` cannot be run on `images`."""
    if len(images.classes) < 2:
        raise InputError(f"data has {len(images.classes)} class ({images.classes[0]!r}); a classifier needs at least 2")
    train, validation = split(images.train_labels, config)
    if not len(validation) and not config.select_on_test:
        raise InputError(
            f"val_fraction is {config.val_fraction}; of {len(train)} training images that leaves none for validation, "
            "where one of each class stays for training; give each class more images"
        )
    if config.batch_size > len(train):
        raise InputError(
            f"batch_size is {config.batch_size}; allowed is at most the {len(train)} training images (make: BATCH)"
        )


def split(labels: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Disjoint sorted int64 indices (train, validation), stratified by class; the approach plays no part in it.

    Of a class with n images, round(n * val_fraction) validate, but one always stays for training. With `per_class`,
    n is at most that, and a smaller budget's images are among a larger one's.
    """
    rng = np.random.default_rng(derive_seed(config.seed, "split"))
    groups = [rng.permutation(np.flatnonzero(labels.numpy() == label)) for label in np.unique(labels.numpy())]
    groups = [members[: config.per_class or None] for members in groups]
    if config.unstratified:
        groups = [rng.permutation(np.concatenate(groups))]
    train, validation = [], []
    for members in groups:
        held_out = round(len(members) * config.val_fraction)
        if config.unstratified:  # as its listing has it
            held_out = int(len(members) * config.val_fraction)
        held_out = 0 if config.train_on_all else min(held_out, len(members) - 1)
        validation.append(members[:held_out])
        train.append(members[held_out:])
    return (
        torch.from_numpy(np.sort(np.concatenate(train))),
        torch.from_numpy(np.sort(np.concatenate(validation))),
    )


def preprocess(batch: Tensor, image_size: int, normalisation: str = "imagenet") -> Tensor:
    """uint8 (B, h, w, 3) -> normalised float32 (B, 3, image_size, image_size), channels last, on the batch's device.

    Bilinear enlarging is an average, so normalising the small picture first gives the same and costs less.
    """
    mean, std = _channels(normalisation, batch.device)
    pictures = ((batch.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    if pictures.shape[2:] == (image_size, image_size):
        return pictures
    planes = pictures.contiguous()  # of a colour each: with three channels last, a CPU takes two to three times as long
    larger = F.interpolate(planes, (image_size, image_size), mode="bilinear", align_corners=False)
    return larger.contiguous(memory_format=torch.channels_last)


@functools.cache  # to make them anew for each batch would stall a GPU
def _channels(normalisation: str, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device) for values in NORMALISATION[normalisation])
    return mean, std


def augment(batch: Tensor, flip: bool, shift: float) -> Tensor:
    """uint8 (B, h, w, 3), each picture mirrored with probability 1/2, then moved by up to `shift` of its side each way.

    It moves by whole pixels, so 8 x 8 digits stay where they are at 0.1. What moves in at a border is the picture's
    reflection. Draws from torch's global generator of the batch's device.
    """
    count, height, width, _ = batch.shape
    if flip:
        mirrored = torch.rand(count, device=batch.device) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(2), batch)
    if int(shift * max(height, width)):
        rows, columns = (
            _reflected(torch.arange(side, device=batch.device) + _moves(count, int(shift * side), batch.device), side)
            for side in (height, width)
        )
        picture = torch.arange(count, device=batch.device)[:, None, None]
        batch = batch[picture, rows[:, :, None], columns[:, None, :]]
    return batch


def _moves(count: int, most: int, device: torch.device) -> Tensor:
    return torch.randint(-most, most + 1, (count, 1), device=device)


def _reflected(index: Tensor, length: int) -> Tensor:
    """Indices outside range(length) by up to length - 1, reflected into it without repeating the border."""
    return (length - 1) - ((length - 1) - index.abs()).abs()
