"""The one training loop, and evaluation."""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from report_lib import models
from report_lib.config import Config, derive_seed, probe_of
from report_lib.data import Images
from report_lib.files import InputError, bar
from report_lib.training import checkpoints
from report_lib.training.device import Place, own_random_state
from report_lib.training.device import place as place_of
from report_lib.training.features import Inputs
from report_lib.training.precision import autocast
from report_lib.training.task import Samples, Task, prepare, whole

Step = Callable[[nn.Module, Tensor, Tensor, torch.optim.Optimizer], Tensor]
Watch = Callable[[Config, list[dict]], object]  # called after each epoch with all epochs so far

CHECKPOINT_SECONDS = 30  # since the last one: below that, to train again costs less than to write a gigabyte


class Diverged(InputError):
    """A loss is no longer finite."""


@dataclass
class History:
    """How far a run has come: one dict per epoch, and the best epoch by validation accuracy."""

    epochs: list[dict] = field(default_factory=list)
    selected: int = 0  # counted from 1
    state: dict[str, Tensor] = field(default_factory=dict)  # of the trained module, as it was then
    validation_logits: Tensor = field(default_factory=lambda: torch.empty(0))


# --- what a reader wants to see --------------------------------------------------------------------------------


def step(module: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step down the cross-entropy of a batch; returns its mean loss, in nats, still on the device."""
    loss = F.cross_entropy(module(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train_epoch(
    module: nn.Module, samples: Samples, batches: Iterable[Tensor], optimizer: Any, schedule: Any, step: Step = step
) -> Tensor:
    """A step for each of `batches` (indices); returns the mean loss of each, in nats, still on the device."""
    losses = []
    for batch in batches:
        losses.append(step(module, samples.inputs(batch), samples.labels[batch], optimizer))
        schedule.step()
    return torch.stack(losses)


@torch.inference_mode()
def predict(module: nn.Module, inputs: Inputs, index: Tensor, batch_size: int) -> Tensor:
    """Logits (N, classes), float32 on the CPU, of `module` in eval mode for the samples in `index`."""
    module.eval()
    return torch.cat([module(inputs(batch)).float() for batch in index.split(batch_size)]).cpu()


def selects(history: History) -> bool:
    """Whether the last epoch is the best so far: higher validation accuracy, or as high with a lower loss."""
    last, best = history.epochs[-1], history.epochs[history.selected - 1]
    if not history.selected:
        return True
    return (last["validation_accuracy"], -last["validation_loss"]) > (
        best["validation_accuracy"],
        -best["validation_loss"],
    )


# --- the loop --------------------------------------------------------------------------------------------------


def epochs(
    net: nn.Module, images: Images, config: Config, step: Step = step, device: str = "auto", cache: str = ""
) -> Iterator[dict]:
    """Trains what of `net` needs gradients, and gives its figures after each epoch.

    At the end `net` is in the state of its selected epoch. Losses in nats per sample, accuracies as fractions, times in
    seconds. Raises InputError for what cannot be trained, Diverged if a loss is no number.
    """
    place = place_of(device, config.precision, cache)
    task, history = begin(net, images, config, place), History()
    for history in train(task, config, place, step):
        yield history.epochs[-1]
    finish(net, task, history, config)


def begin(net: nn.Module, images: Images, config: Config, place: Place) -> Task:
    """The task of training `net` as it is, on the device; from the head of a probe, where the config says so."""
    if not models.trained_names(net):
        raise InputError("the network has no parameter that needs gradients; models.train_only says which shall")
    net.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seconds = start_from_probe(net, images, config, place) if config.start == "probe" else 0.0
    task = prepare(net, images, config, place)
    task.start_seconds += seconds
    return task


def finish(net: nn.Module, task: Task, history: History, config: Config) -> None:
    """Leaves `net` in the state of the selected epoch, a standardised head folded into a plain one."""
    task.module.load_state_dict(history.state)
    if isinstance(task.module, models.Standardised):
        models.head_of(net, config).load_state_dict(task.module.plain().state_dict())


def start_from_probe(net: nn.Module, images: Images, config: Config, place: Place) -> float:
    """Gives `net` the head of a tuned linear probe on the same data, split and seed; returns the seconds it took.

    With a random head the first steps would bend good features (Kumar et al. 2022).
    """
    trained, probe = models.trained_names(net), probe_of(config)
    models.train_only(net, probe)
    task = prepare(net, images, probe, place)
    *_, history = train(task, probe, place)
    finish(net, task, history, probe)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    return task.features_seconds + task.start_seconds + sum(epoch["train_seconds"] for epoch in history.epochs)


def train(
    task: Task, config: Config, place: Place, step: Step = step, checkpoint: Path | None = None
) -> Iterator[History]:
    """Trains the task's module, keeping the epoch with the best validation accuracy; gives the history so far.

    Every epoch has its own seeds, so a run resumed from `checkpoint` goes on as if it had never stopped.
    """
    module, samples, held_out = task.module, task.training, task.validation
    optimizer = optimizer_of(task, config)
    history = History(**checkpoints.resume(checkpoint, module, optimizer))
    saved, count = time.monotonic(), len(samples.index)
    sizes = batch_sizes(count, config.batch_size, module)
    steps = len(sizes)
    start = len(history.epochs) * steps
    factor = functools.partial(rate_factor, steps=config.epochs * steps, config=config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor, last_epoch=start - 1)
    what = f"{config.approach} {config.preset} seed {config.seed}"
    with bar(what, config.epochs * steps, "batch", start) as progress:
        for epoch in range(len(history.epochs) + 1, config.epochs + 1):
            order = shuffled(count, derive_seed(config.seed, f"order {epoch}")).to(samples.index.device)
            batches = samples.index[order].split(sizes)
            with own_random_state(place.device), autocast(place.precision, place.device):
                torch.manual_seed(derive_seed(config.seed, f"dropout {epoch}"))
                clock = time.perf_counter()
                models.set_mode(module, not (config.dropout_ends and epoch > 1))
                losses = train_epoch(module, samples, counted(batches, progress), optimizer, schedule, step)
                train_loss = average(losses, batches, config.batch_averages)
                train_seconds = time.perf_counter() - clock
            check_finite(train_loss, "training", epoch, config)
            clock = time.perf_counter()
            with autocast(place.precision, place.device, keep=True):
                logits = predict(module, held_out.inputs, held_out.index, config.batch_size)
            per_batch = config.batch_size if config.batch_averages else None
            validation_loss, accuracy = score(logits, held_out.labels[held_out.index].cpu(), per_batch)
            check_finite(validation_loss, "validation", epoch, config)
            history.epochs.append(
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "validation_loss": validation_loss,
                    "validation_accuracy": accuracy,
                    "train_seconds": train_seconds,
                    "validation_seconds": time.perf_counter() - clock,
                }
            )
            if selects(history):
                history.selected = epoch
                history.state = copy.deepcopy(module.state_dict())
                history.validation_logits = logits
            progress.set_postfix_str(
                f"epoch {epoch}/{config.epochs}, training loss {train_loss:.3f}, validation {accuracy:.1%}"
            )
            if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoints.save(checkpoint, module, optimizer, vars(history))
                saved = time.monotonic()
            yield history
    if start == config.epochs * steps:  # the checkpoint was that of the last epoch
        yield history


def test(task: Task, history: History, images: Images, config: Config, place: Place) -> Tensor:
    """Logits (N, classes) of all test images; those of the selected epoch, where it was selected on them."""
    if config.select_on_test:
        return history.validation_logits
    samples = whole(task.read("test")[0], images.test_labels, place.device)
    with autocast(place.precision, place.device, keep=True):
        return predict(task.module, samples.inputs, samples.index, config.batch_size)


def optimizer_of(task: Task, config: Config) -> torch.optim.Optimizer:
    """The config's optimizer for the trained parameters of the task; those of the trunk have their own rate."""
    rates = (config.learning_rate * config.trunk_rate, config.learning_rate)
    groups = [{"params": params, "lr": rate} for params, rate in zip(task.groups, rates, strict=True) if params]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=config.weight_decay, fused=True)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)  # Adam, where there is no decay


def batch_sizes(count: int, size: int, module: nn.Module) -> list[int]:
    """Images of each step of an epoch. One image left over joins the step before, where `module` trains batch
    normalisation, which has no variance of a single one. Raises InputError if `size` is 1 there."""
    sizes = [size] * (count // size) + [count % size] * (count % size > 0)
    if 1 in sizes and models.normalises(module):
        if len(sizes) == 1 or size == 1:
            raise InputError(
                f"batch_size is {size}, which leaves steps of a single image; batch normalisation needs at least 2"
            )
        sizes[-2:] = [size + 1]
    return sizes


def rate_factor(step: int, steps: int, config: Config) -> float:
    """Of the learning rate at `step` (from 0) of all `steps`: a linear rise, then constant or half a cosine to zero."""
    rise = config.warmup * steps
    if step < rise:
        return (step + 1) / math.ceil(rise)
    if config.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def counted(batches: Iterable[Tensor], progress: Any) -> Iterator[Tensor]:
    """`batches`, each reported when it has been worked on."""
    for batch in batches:
        yield batch
        progress.update()


def average(losses: Tensor, batches: tuple[Tensor, ...], per_batch: bool) -> float:
    """The mean loss per sample from the batches' means, or, as published, the mean of those means."""
    weights = torch.tensor([1 if per_batch else len(batch) for batch in batches], dtype=torch.float64)
    return ((losses.double().cpu() * weights).sum() / weights.sum()).item()


def score(logits: Tensor, labels: Tensor, per_batch: int | None = None) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy as a fraction); summed in float64.

    The mean is over samples, or, as published, over the means of batches of `per_batch`.
    """
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    means = torch.stack([batch.mean() for batch in losses.split(per_batch or len(losses))])
    return means.mean().item(), (logits.argmax(1) == labels).double().mean().item()


def check_finite(loss: float, part: str, epoch: int, config: Config) -> None:
    """Raises Diverged if it is not."""
    if not math.isfinite(loss):
        raise Diverged(
            f"learning_rate is {config.learning_rate}; {config.approach} diverged in epoch {epoch} ({part} loss "
            f"{loss}), so try a smaller one"
        )


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of range(count), the same on every device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
