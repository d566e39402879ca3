"""The one training loop and evaluation: a recipe, images and weights -> a network adapted, and its predictions."""

import copy
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from report_lib import checkpoints, data, machine, model, progress
from report_lib.features import frozen_features
from report_lib.recipe import InputError, Recipe, derive_seed, probe_of, source_hash

Inputs = Callable[[Tensor], Tensor]  # indices (B,) -> what a module takes: pictures (B, 3, s, s) or features (B, n)

Watch = Callable[[Recipe, list[dict]], object]  # called after each epoch with all epochs so far

CHECKPOINT_SECONDS = 30  # an epoch this long is worth writing half a gigabyte for


def unwatched(recipe: Recipe, epochs: list[dict]) -> None:
    """The Watch of a run that nobody watches."""


class Diverged(InputError):
    """A loss is no longer finite."""


@dataclass(frozen=True)
class Samples:
    """Some images of a data set, as a module takes them: `index` (N,) says which; `labels` are of the whole set."""

    inputs: Inputs
    labels: Tensor
    index: Tensor


@dataclass
class History:
    """How far a run has come: one dict an epoch, and the best epoch by validation accuracy."""

    epochs: list[dict] = field(default_factory=list)
    selected: int = 0  # counted from 1
    state: dict[str, Tensor] = field(default_factory=dict)  # of the trained module, as it was then
    validation_logits: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class Setting:
    """What a recipe is applied to, and where."""

    images: data.Images
    weights: model.Weights
    device: torch.device
    precision: str
    cache: Path


@dataclass(frozen=True)
class Adapted:
    """What was trained, `module`, in the state of its selected epoch, and the network that it is the top of."""

    net: nn.Module
    module: nn.Module
    read: Callable[[str], tuple[Inputs, float]]  # "train" or "test" -> the module's inputs
    training: Samples
    validation: Samples
    history: History
    start_seconds: float
    features_seconds: float
    validation_features_seconds: float
    filters_before: Tensor  # of the first layer, (64, 3, 11, 11)


def adapt(recipe: Recipe, setting: Setting, checkpoint: Path | None = None, watch: Watch = unwatched) -> Adapted:
    """Trains what the recipe trains. Reads no test image, unless the recipe has the defect `select_on_test`.

    Raises Diverged if a loss is no number.
    """
    images, device = setting.images, setting.device
    machine.keep_freed_memory()
    net = model.build(setting.weights, len(images.classes), recipe.seed)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    filters_before = net.features[0].weight.detach().float().cpu().clone()
    with torch.random.fork_rng(), machine.autocast(setting.precision, device):
        start_seconds = start_from_probe(net, recipe, setting) if recipe.start == "probe" else 0.0
        module, read = prepare(net, recipe, setting)
        inputs, features_seconds = read("train")
        labels = images.train_labels.to(device)
        training, validation = (Samples(inputs, labels, i.to(device)) for i in data.split(images.train_labels, recipe))
        if recipe.select_on_test:
            test_inputs, validation_features_seconds = read("test")
            validation = whole(test_inputs, images.test_labels, device)
        else:
            validation_features_seconds = features_seconds * len(validation.index) / len(labels)
        if recipe.flip or recipe.shift:
            training = replace(training, inputs=pictures(images.train, recipe, device, augmented=True))
        clock = time.perf_counter()
        if recipe.standardise:
            module = standardised(module, training)  # type: ignore[arg-type]
        start_seconds += time.perf_counter() - clock
        history = fit(module, training, validation, recipe, checkpoint, watch)
        module.load_state_dict(history.state)
    features_seconds *= len(training.index) / len(labels)
    return Adapted(
        net, module, read, training, validation, history, start_seconds, features_seconds, validation_features_seconds,
        filters_before,
    )  # fmt: skip


def test(adapted: Adapted, recipe: Recipe, setting: Setting) -> Tensor:
    """Logits (N, classes) of all test images; those of the selected epoch, where it was selected on them."""
    if recipe.select_on_test:
        return adapted.history.validation_logits
    with machine.autocast(setting.precision, setting.device):
        images = whole(adapted.read("test")[0], setting.images.test_labels, setting.device)
        return predict(adapted.module, images.inputs, images.index, recipe.batch_size)


# --- what is trained on what -----------------------------------------------------------------------------------


def prepare(
    net: nn.Module, recipe: Recipe, setting: Setting
) -> tuple[nn.Module, Callable[[str], tuple[Inputs, float]]]:
    """(the module of `net` to train, read), where read("train" or "test") gives its inputs and the seconds they took.

    Those of full fine-tuning are pictures; those of a linear probe are what its frozen layers make of them.
    """
    images, device = setting.images, setting.device
    if recipe.approach == "full_finetune":
        return net, lambda part: (pictures(getattr(images, part), recipe, device), 0.0)
    model.freeze_trunk(net)
    frozen, module = model.cut(net, recipe.frozen_dropout)
    width = next(module.parameters()).shape[1]
    key = {
        "data": images.fingerprint,
        "weights": setting.weights.sha256 or f"random, seed {recipe.seed}",
        "code": source_hash(),
        "torch": torch.__version__,
        "device": machine.where(device),  # whose seconds are kept with the features
        "precision": setting.precision,
        "image_size": recipe.image_size,
        "normalisation": recipe.normalisation,
        "width": width,
    }

    def read(part: str) -> tuple[Inputs, float]:
        stored = getattr(images, part)
        values, seconds = frozen_features(
            frozen, pictures(stored, recipe, device), len(stored), width, key | {"part": part}, setting.cache
        )
        return rows(values, device), seconds

    return module, read


def start_from_probe(net: nn.Module, recipe: Recipe, setting: Setting) -> float:
    """Gives `net` the head of a tuned linear probe on the same data, split and seed; returns the seconds it took.

    With a random head the first steps would bend good features (Kumar et al. 2022).
    """
    probe = probe_of(recipe)
    net.requires_grad_(True)
    head, read = prepare(net, probe, setting)
    inputs, seconds = read("train")
    labels = setting.images.train_labels.to(setting.device)
    training, validation = (
        Samples(inputs, labels, index.to(setting.device)) for index in data.split(setting.images.train_labels, probe)
    )
    module = standardised(head, training)  # type: ignore[arg-type]
    history = fit(module, training, validation, probe, None)
    module.load_state_dict(history.state)
    net.classifier[model.HEAD] = module.plain()  # type: ignore
    net.requires_grad_(True)
    return seconds * len(training.index) / len(labels) + sum(epoch["train_seconds"] for epoch in history.epochs)


def standardised(head: nn.Linear, training: Samples) -> model.Standardised:
    """`head`, from zero, on features scaled by their mean and deviation over the training images.

    A deviation counts as a tenth of the features' mean one at least: what is almost never active is not blown up.
    """
    blocks = training.index.split(4096)
    mean = sum(training.inputs(block).sum(0) for block in blocks) / len(training.index)
    square = sum((training.inputs(block) - mean).square().sum(0) for block in blocks) / len(training.index)
    std = square.sqrt()  # type: ignore[union-attr]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return model.Standardised(head, mean, std.clamp(min=0.1 * std.mean()))  # type: ignore[arg-type]


def whole(inputs: Inputs, labels: Tensor, device: torch.device) -> Samples:
    """All images of a part."""
    return Samples(inputs, labels.to(device), torch.arange(len(labels), device=device))


def pictures(images: Tensor, recipe: Recipe, device: torch.device, augmented: bool = False) -> Inputs:
    """Indices -> preprocessed pictures; the uint8 images themselves move to the device if it has room for them."""
    if machine.room_for(images.nbytes, device):
        images = images.to(device)

    def read(index: Tensor) -> Tensor:
        batch = images[index.to(images.device)].to(device)
        if augmented:
            batch = data.augment(batch, recipe.flip, recipe.shift)
        return data.preprocess(batch, recipe.image_size, recipe.normalisation)

    return read


def rows(values: Tensor, device: torch.device) -> Inputs:
    """Indices -> rows of `values`, which move to the device if it has room for them."""
    if machine.room_for(values.nbytes, device):
        values = values.to(device)
    return lambda index: values[index.to(values.device)].to(device)


# --- the loop --------------------------------------------------------------------------------------------------


def fit(
    module: nn.Module,
    training: Samples,
    validation: Samples,
    recipe: Recipe,
    checkpoint: Path | None,
    watch: Watch = unwatched,
) -> History:
    """Trains what of `module` needs gradients, keeping the epoch with the best validation accuracy.

    `watch` is told of each epoch. Every epoch has its own seeds, so a run resumed from `checkpoint` goes on as if it
    had never stopped. Raises Diverged if a loss is no number.
    """
    optimizer = model.optimized(module, recipe)
    history = History(**checkpoints.resume(checkpoint, module, optimizer))
    saved = time.monotonic()
    count = len(training.index)
    steps = math.ceil(count / recipe.batch_size)
    factor = functools.partial(rate_factor, steps=recipe.epochs * steps, recipe=recipe)
    what = f"{recipe.approach} {recipe.recipe} seed {recipe.seed}"
    with progress.bar(what, recipe.epochs * steps, "batch", len(history.epochs) * steps) as bar:
        for epoch in range(len(history.epochs) + 1, recipe.epochs + 1):
            torch.manual_seed(derive_seed(recipe.seed, f"dropout {epoch}"))
            order = shuffled(count, derive_seed(recipe.seed, f"order {epoch}")).to(training.index.device)
            batches = training.index[order].split(recipe.batch_size)
            factors = [factor(step) for step in range((epoch - 1) * steps, epoch * steps)]

            clock = time.perf_counter()
            module.train(not (recipe.dropout_ends and epoch > 1))
            losses = train_epoch(module, training, batches, optimizer, factors, bar.update)
            train_loss = average(losses, batches, recipe.batch_averages)
            train_seconds = time.perf_counter() - clock
            check_finite(train_loss, "training", epoch, recipe)
            clock = time.perf_counter()
            logits = predict(module, validation.inputs, validation.index, recipe.batch_size)
            per_batch = recipe.batch_size if recipe.batch_averages else len(logits)
            validation_loss, validation_accuracy = score(logits, validation.labels[validation.index].cpu(), per_batch)
            check_finite(validation_loss, "validation", epoch, recipe)
            history.epochs.append(
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "validation_loss": validation_loss,
                    "validation_accuracy": validation_accuracy,
                    "train_seconds": train_seconds,
                    "validation_seconds": time.perf_counter() - clock,
                }
            )
            if selects(history):
                history.selected = epoch
                history.state = copy.deepcopy(module.state_dict())
                history.validation_logits = logits
            bar.set_postfix_str(
                f"epoch {epoch}/{recipe.epochs}, training loss {train_loss:.3f}, validation {validation_accuracy:.1%}"
            )
            watch(recipe, history.epochs)
            if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoints.save(checkpoint, module, optimizer, vars(history))
                saved = time.monotonic()
    return history


def train_epoch(
    module: nn.Module,
    training: Samples,
    batches: tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer,
    factors: list[float],
    tick: Callable[[], object] = lambda: None,
) -> Tensor:
    """One step of the optimizer for each of `batches` (indices), its rates times `factors`.

    Returns the mean loss of each batch, in nats, still on the device: to read one would stall it every step.
    """
    losses = []
    for batch, factor in zip(batches, factors, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        loss = F.cross_entropy(module(training.inputs(batch)), training.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        tick()
    return torch.stack(losses)


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Of the learning rate at `step` (from 0) of all `steps`: a linear rise, then constant or half a cosine to zero."""
    rise = recipe.warmup * steps
    if step < rise:
        return (step + 1) / math.ceil(rise)
    if recipe.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def average(losses: Tensor, batches: tuple[Tensor, ...], per_batch: bool) -> float:
    """The mean loss per sample from the batches' means, or, as published, the mean of those means."""
    weights = torch.tensor([1 if per_batch else len(batch) for batch in batches], dtype=torch.float64)
    return ((losses.double().cpu() * weights).sum() / weights.sum()).item()


@torch.inference_mode()
def predict(module: nn.Module, inputs: Inputs, index: Tensor, batch_size: int) -> Tensor:
    """Logits (N, classes), float32 on the CPU, of `module` in eval mode for the samples in `index`."""
    module.eval()
    return torch.cat([module(inputs(batch)).float() for batch in index.split(batch_size)]).cpu()


def score(logits: Tensor, labels: Tensor, per_batch: int | None = None) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy as a fraction); summed in float64.

    The mean is over samples, or, as published, over the means of batches of `per_batch`.
    """
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    means = torch.stack([batch.mean() for batch in losses.split(per_batch or len(losses))])
    return means.mean().item(), (logits.argmax(1) == labels).double().mean().item()


def selects(history: History) -> bool:
    """Whether the last epoch is the best so far: higher validation accuracy, or as high with a lower loss."""
    last, best = history.epochs[-1], history.epochs[history.selected - 1]
    if not history.selected:
        return True
    return (last["validation_accuracy"], -last["validation_loss"]) > (
        best["validation_accuracy"],
        -best["validation_loss"],
    )


def check_finite(loss: float, part: str, epoch: int, recipe: Recipe) -> None:
    """Raises Diverged if it is not."""
    if not math.isfinite(loss):
        raise Diverged(
            f"learning_rate is {recipe.learning_rate}; {recipe.approach} diverged in epoch {epoch} ({part} loss "
            f"{loss}), so try a smaller one"
        )


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of range(count), the same on every device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
