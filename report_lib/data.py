"""Images as tensors: what a source holds, the split, and batches made on the compute device.

Pictures never leave uint8 until a batch of them is on the device, where it is normalised and enlarged.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from report_lib import sources
from report_lib.recipe import InputError, Recipe, derive_seed, folder

# What ImageNet's torchvision weights, and the embedded ones, were trained with; RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def load(source: str, image_size: int, cache: str = "") -> Images:
    """The images of `source`, decoded on the first call and memory-mapped from the folder `cache` afterwards
    (default: $REPORT_CACHE, or .cache in the project).

    Images that all share one size not above `image_size` keep it; otherwise each becomes a square of `image_size`
    (bilinear with antialiasing, torchvision's `Resize((s, s))`). Raises InputError if the source cannot be used.
    """
    arrays, fingerprint = sources.read(source, image_size, folder(cache, "REPORT_CACHE", ".cache"))
    train, train_labels, test, test_labels = map(torch.from_numpy, arrays[2:])
    return Images(arrays.name, tuple(arrays.classes), train, train_labels, test, test_labels, fingerprint)


def check(images: Images, recipe: Recipe) -> None:
    """Raises InputError if `recipe` cannot be run on `images`."""
    if len(images.classes) < 2:
        raise InputError(f"data has {len(images.classes)} class ({images.classes[0]!r}); a classifier needs at least 2")
    train, validation = split(images.train_labels, recipe)
    if not len(validation):
        raise InputError(
            f"val_fraction is {recipe.val_fraction}; of {len(train)} training images that leaves none for validation"
        )
    if recipe.batch_size > len(train):
        raise InputError(
            f"batch_size is {recipe.batch_size}; allowed is at most the {len(train)} training images (make: BATCH)"
        )


def split(labels: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Disjoint sorted int64 indices (train, validation), stratified by class; the approach plays no part in it.

    Of a class with n images, round(n * val_fraction) validate, but one always stays for training.
    """
    rng = np.random.default_rng(derive_seed(recipe.seed, "split"))
    train, validation = [], []
    for label in np.unique(labels.numpy()):
        members = rng.permutation(np.flatnonzero(labels.numpy() == label))
        held_out = min(round(len(members) * recipe.val_fraction), len(members) - 1)
        validation.append(members[:held_out])
        train.append(members[held_out:])
    return (
        torch.from_numpy(np.sort(np.concatenate(train))),
        torch.from_numpy(np.sort(np.concatenate(validation))),
    )


def preprocess(batch: Tensor, image_size: int) -> Tensor:
    """uint8 (B, h, w, 3) -> float32 (B, 3, image_size, image_size), ImageNet-normalised, on the batch's device.

    Bilinear enlarging is an average, so normalising the small picture first gives the same and costs less.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=batch.device)
    std = torch.tensor(IMAGENET_STD, device=batch.device)
    pictures = ((batch.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    if pictures.shape[2:] == (image_size, image_size):
        return pictures
    return F.interpolate(pictures, (image_size, image_size), mode="bilinear", align_corners=False)
