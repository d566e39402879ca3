"""The one training loop, evaluation, frozen features, and `run`, which trains only what the run store lacks."""

import contextlib
import copy
import datetime
import importlib.metadata
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from report_lib import data, model, records
from report_lib.recipe import (
    DEVICES,
    PROJECT,
    InputError,
    Recipe,
    check_writable,
    derive_seed,
    digest,
    folder,
    source_hash,
)

Inputs = Callable[[Tensor], Tensor]  # indices (B,) -> what a module takes: pictures (B, 3, s, s) or features (B, 4096)

CHECKPOINT_SECONDS = 30  # an epoch this long is worth writing half a gigabyte for


@dataclass
class History:
    """How far a run has come: one dict an epoch, and the best epoch by validation accuracy."""

    epochs: list[dict] = field(default_factory=list)
    selected: int = 0  # counted from 1
    state: dict[str, Tensor] = field(default_factory=dict)  # of the trained module, as it was then
    validation_logits: Tensor = field(default_factory=lambda: torch.empty(0))


def run(recipe: Recipe, runs: str = "", cache: str = "", device: str = "auto") -> records.Run:
    """The finished run of `recipe`: read from the store `runs`, or trained now and stored there.

    Raises InputError if the recipe, its data or its weights cannot be used.
    """
    store = folder(runs, "REPORT_RUNS", ".runs")
    chosen_device = pick_device(device)
    images = data.load(recipe.data, recipe.image_size, cache)
    data.check(images, recipe)
    weights = model.load_weights(recipe.weights)
    name = run_name(recipe, images, weights)
    if not records.exists(store, name):
        check_writable(store, "runs")  # now, not after hours of training
        train(recipe, images, weights, chosen_device, store, name)
    records.remember(store, recipe, name)
    return records.load(store / name)


def run_name(recipe: Recipe, images: data.Images, weights: model.Weights) -> str:
    """Folder of a run: approach, recipe, seed, and a hash of all that determines it (but not the device)."""
    fields = asdict(recipe) | {"data": images.fingerprint, "weights": weights.sha256, "code": source_hash()}
    return f"{recipe.approach}-{recipe.recipe}-seed{recipe.seed}-{digest(fields)[:12]}"


def train(
    recipe: Recipe, images: data.Images, weights: model.Weights, device: torch.device, store: Path, name: str
) -> Path:
    """Trains one run, tests its selected epoch once, and stores the record."""
    started = datetime.datetime.now(datetime.UTC)
    precision = pick_precision(recipe.precision, device)
    reset_peak_memory(device)
    net = model.build(weights, len(images.classes), recipe.seed)
    if recipe.approach == "linear_probe":
        model.freeze_trunk(net)
    net.to(device)
    training, validation = (index.to(device) for index in data.split(images.train_labels, recipe))
    labels = images.train_labels.to(device)

    with torch.random.fork_rng(), autocast(precision, device):
        module: nn.Module = net
        inputs = pictures(images.train, recipe, device)
        features_seconds = validation_features_seconds = 0.0
        if recipe.approach == "linear_probe":  # the trunk never changes, so its output is computed once
            module = model.head(net)
            features = torch.empty(len(labels), module.in_features, device=device)
            features_seconds = fill_features(features, net, inputs, training, recipe)
            validation_features_seconds = fill_features(features, net, inputs, validation, recipe)
            inputs = features.__getitem__
        history = fit(module, inputs, labels, training, validation, recipe, store / f".{name}.checkpoint")
        module.load_state_dict(history.state)
        clock = time.perf_counter()
        test_index = torch.arange(len(images.test), device=device)
        test_logits = predict(net, pictures(images.test, recipe, device), test_index, recipe.batch_size)
        test_seconds = time.perf_counter() - clock

    test_loss, test_accuracy = score(test_logits, images.test_labels)
    check_finite(test_loss, "test", history.selected, recipe)
    train_seconds = features_seconds + sum(epoch["train_seconds"] for epoch in history.epochs)
    best = history.epochs[history.selected - 1]
    info = {
        "recipe": asdict(recipe),
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "train": len(training),
            "validation": len(validation),
            "test": len(images.test),
            "classes": list(images.classes),
            "stored_size": list(images.train.shape[1:3]),
        },
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "selected_epoch": history.selected,
        "validation_accuracy": best["validation_accuracy"],
        "validation_loss": best["validation_loss"],
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "train_seconds": train_seconds,
        "features_seconds": features_seconds,
        "validation_seconds": validation_features_seconds + sum(e["validation_seconds"] for e in history.epochs),
        "test_seconds": test_seconds,
        "images_per_second": len(training) * recipe.epochs / train_seconds,
        "peak_memory_mib": peak_memory_mib(device),
        "parameters": sum(p.numel() for p in net.parameters()),
        "trained_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "provenance": provenance(device, precision, started),
    }
    arrays = {
        "test_logits": test_logits.numpy(),
        "test_labels": images.test_labels.numpy(),
        "validation_logits": history.validation_logits.numpy(),
        "validation_labels": images.train_labels[validation.cpu()].numpy(),
        "validation_index": validation.cpu().numpy(),
    }
    path = records.save(store, name, info, history.epochs, arrays)
    (store / f".{name}.checkpoint").unlink(missing_ok=True)
    return path


def fit(
    module: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    training: Tensor,
    validation: Tensor,
    recipe: Recipe,
    checkpoint: Path,
) -> History:
    """Trains what of `module` needs gradients, keeping the epoch with the best validation accuracy.

    Every epoch has its own seeds, so a run resumed from `checkpoint` goes on as if it had never stopped.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate, fused=True)
    history = resume(checkpoint, module, optimizer)
    saved = time.monotonic()
    steps = math.ceil(len(training) / recipe.batch_size)
    with tqdm(
        total=recipe.epochs * steps,
        initial=len(history.epochs) * steps,
        desc=f"{recipe.approach} seed {recipe.seed}",
        unit="batch",
        leave=False,
        mininterval=0.5,
    ) as bar:
        for epoch in range(len(history.epochs) + 1, recipe.epochs + 1):
            torch.manual_seed(derive_seed(recipe.seed, f"dropout {epoch}"))
            order = training[shuffled(len(training), derive_seed(recipe.seed, f"order {epoch}")).to(training.device)]

            clock = time.perf_counter()
            train_loss = train_epoch(module, inputs, labels, order.split(recipe.batch_size), optimizer, bar.update)
            train_seconds = time.perf_counter() - clock
            check_finite(train_loss, "training", epoch, recipe)
            clock = time.perf_counter()
            logits = predict(module, inputs, validation, recipe.batch_size)
            validation_loss, validation_accuracy = score(logits, labels[validation].cpu())
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
            bar.set_postfix_str(f"epoch {epoch}/{recipe.epochs}, validation {validation_accuracy:.1%}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(checkpoint, module, optimizer, history)
                saved = time.monotonic()
    return history


def check_finite(loss: float, part: str, epoch: int, recipe: Recipe) -> None:
    """Raises InputError if training has diverged."""
    if not math.isfinite(loss):
        raise InputError(
            f"learning_rate is {recipe.learning_rate}; {recipe.approach} diverged in epoch {epoch} ({part} loss "
            f"{loss}), so try a smaller one"
        )


def train_epoch(
    module: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    batches: tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer,
    tick: Callable[[], object] = lambda: None,
) -> float:
    """One pass over `batches` of indices; returns the mean loss per sample, in nats."""
    module.train()
    total = torch.zeros((), device=labels.device)  # summed on the device: a float() here would stall it every batch
    for batch in batches:
        loss = F.cross_entropy(module(inputs(batch)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
        tick()
    return total.item() / sum(map(len, batches))


@torch.inference_mode()
def predict(module: nn.Module, inputs: Inputs, index: Tensor, batch_size: int) -> Tensor:
    """Logits (N, classes), float32 on the CPU, of `module` in eval mode for the samples in `index`."""
    module.eval()
    return torch.cat([module(inputs(batch)).float() for batch in index.split(batch_size)]).cpu()


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(mean cross-entropy per sample in nats, accuracy as a fraction); summed in float64."""
    loss = F.cross_entropy(logits.double(), labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def selects(history: History) -> bool:
    """Whether the last epoch is the best so far: higher validation accuracy, or as high with a lower loss."""
    last, best = history.epochs[-1], history.epochs[history.selected - 1]
    if not history.selected:
        return True
    return (last["validation_accuracy"], -last["validation_loss"]) > (
        best["validation_accuracy"],
        -best["validation_loss"],
    )


@torch.inference_mode()
def fill_features(features: Tensor, net: nn.Module, inputs: Inputs, index: Tensor, recipe: Recipe) -> float:
    """Writes the trunk's output, dropout off, into the rows `index` of `features`; returns the seconds it took."""
    clock = time.perf_counter()
    frozen = model.trunk(net).eval()
    bar = tqdm(index.split(recipe.batch_size), desc="frozen features", unit="batch", leave=False, mininterval=0.5)
    for batch in bar:
        features[batch] = frozen(inputs(batch)).float()
    if features.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - clock


def pictures(images: Tensor, recipe: Recipe, device: torch.device) -> Inputs:
    """Indices -> preprocessed pictures; the uint8 images themselves move to the device if it has room for them."""
    if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
        images = images.to(device)
    return lambda index: data.preprocess(images[index.to(images.device)].to(device), recipe.image_size)


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of range(count), the same on every device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


# --- checkpoints -----------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}-{os.getpid()}")
    content = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": vars(history)}
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    """Continues from the checkpoint at `path`, or starts afresh where there is none."""
    if not path.exists():
        return History()
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    return History(**content["history"])


# --- the machine -----------------------------------------------------------------------------------------------


def pick_device(device: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises InputError if a named device is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if device not in DEVICES or not there[device]:
        usable = ", ".join(["auto", *(kind for kind, available in there.items() if available)])
        raise InputError(f"device is {device!r}; this machine has {usable}")
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the hardware multiplies in it (CUDA since Ampere, CPUs with AMX), else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        abilities: Mapping = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our lower bound of torch
        fast = device.type == "cpu" and bool(abilities.get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Mixed precision where asked for; weights, gradients and losses stay float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    # Without its cache, which would keep the first step's copy of the weights for as long as the context lasts.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux alone can forget a process's peak
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Most memory held since `reset_peak_memory`: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, but bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def provenance(device: torch.device, precision: str, started: datetime.datetime) -> dict:
    """Where, when and with what a run was made."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "code": source_hash(),
        "command": _command(Path(sys.argv[0]), sys.argv[1:]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
    }


def _command(program: Path, arguments: list[str]) -> str:
    if "ipykernel" in program.name:
        return "notebook"  # its arguments are a connection file of no lasting meaning
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *arguments])


def _git(*arguments: str) -> str | None:
    """git's answer about this project, or None where it is no repository or git is missing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
