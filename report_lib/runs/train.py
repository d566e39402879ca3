"""`run`: the finished run of a config, trained only where the store lacks it.

What decides a run's outcome is in the rooms below; this one may change without making finished runs stale.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from report_lib import data, models, training
from report_lib.config import NETWORKS, Config, decides
from report_lib.files import STORE as STORE_FOLDER
from report_lib.files import InputError, alone, check_writable, digest, folder, sweep
from report_lib.runs import store as records
from report_lib.runs.provenance import cpu_seconds, now, others_share, provenance
from report_lib.runs.trained import pretrained
from report_lib.training import loop
from report_lib.training.device import as_file_name as device_as_file_name
from report_lib.training.device import device_name, lacks_memory, peak_memory_mib, reset_peak_memory


@dataclasses.dataclass(frozen=True)
class Change:
    """What a notebook changed in the network or the step that it hands over, beside what its config says."""

    trained: tuple[str, ...] = ()  # the parameters that are trained instead
    network: str = ""  # the outline of other layers or other weights
    step: str = ""  # the code of another step

    def __bool__(self) -> bool:
        return bool(self.trained or self.network or self.step)

    def __str__(self) -> str:
        parts = [f"trained are {', '.join(self.trained)}"] if self.trained else []
        parts += ["layers or weights of the network were changed"] * bool(self.network)
        return "; ".join(parts + ["the step was changed"] * bool(self.step))


def change_of(config: Config, net: nn.Module | None, step: training.Step) -> Change:
    """What tells `net` and `step` from those that the library would take for `config`."""
    if net is None:
        return Change(step=training.differs(step, training.step))
    trained, outline = models.trained_names(net), models.outline(net)
    return Change(
        tuple(trained) if trained != models.trained_by(net, config) else (),
        outline if outline != models.origin_of(net).outline else "",
        training.differs(step, training.step),
    )


def check_origin(config: Config, net: nn.Module, weights_sha: str | None) -> None:
    """Raises InputError for a network that was built from another config: what a notebook shows is what is trained."""
    origin, advice = models.origin_of(net), "give models.build the config that is to be run"
    if origin.weights.sha256 != weights_sha:
        raise InputError(
            f"weights is {config.weights!r}, but the network was built from others ({origin.weights.name}); {advice}"
        )
    if origin.outline == models.outline(net):  # its layers are the library's
        with torch.device("meta"):
            own = models.bare(config.network)
        models.set_head(own, config, getattr(models.head_of(net, config), "out_features", 0))
        if repr(net) != repr(own):
            raise InputError(f"network is {config.network!r}, but that which was built is another; {advice}")


def run_name(config: Config, data_sha: str, weights_sha: str | None, change: Change = Change()) -> str:  # noqa: B008
    """Folder of a run: approach, preset, seed, and a hash of all that determines it (but not the device)."""
    fields = decides(config) | {"data": data_sha, "weights": weights_sha, "code": training.code_hash()}
    modified = "-modified" if change else ""
    fields |= {"change": dataclasses.asdict(change)} if change else {}
    return f"{config.approach}-{config.preset}{modified}-seed{config.seed}-{digest(fields)[:12]}"


def run(
    config: Config,
    runs: str = "",
    cache: str = "",
    device: str = "auto",
    watch: training.Watch | None = None,
    net: nn.Module | None = None,
    step: training.Step = training.step,
    keep: bool = False,
    shas: tuple[str, str | None] | None = None,
    features: str = "",
) -> records.Run:
    """The finished run of `config`: read from the store `runs`, or trained now and stored there.

    `net` and `step` are what a notebook shows, if they differ from what the library would take. While it trains,
    `watch` is called after each epoch with the config and the epochs so far. `keep` stores the trained weights. `shas`
    are those of data and weights, if they are known; `features` is the folder of frozen features, if not `cache`.

    Raises InputError if the config, its data or its weights cannot be used, if the store cannot be written or holds a
    damaged record of this run, if the device lacks the memory, or (Diverged) if a loss is no number.
    """
    store = folder(runs, *STORE_FOLDER)
    change = change_of(config, net, step)
    if shas is None:
        shas = data.fingerprint(config, cache=cache), models.weights_sha256(config.weights, config.network)
    if net is not None:
        check_origin(config, net, shas[1])
    name = run_name(config, *shas, change)
    if not records.exists(store, name):
        training.check_unchanged()
        check_writable(store, "runs")  # now, not after hours of training
        place = training.place(device, config.precision, features or cache)
        data.cache_limit()  # what is wrong with it is said now, though it is used much later
        images = data.load(config, cache=cache)
        data.check(images, config)
        lock = store / f".{name}.lock"
        with alone(lock, name):
            if not records.exists(store, name):  # as it may since another process has finished it
                records.clear_way(store, name)
                make(config, images, place, store, name, watch, net if change else None, step, change, keep)
            with contextlib.suppress(OSError):  # another user's
                lock.unlink()  # whoever still waits for it finds the run, and trains nothing
    else:  # its checkpoint stays behind where a run was killed after its record was there
        sweep(store, f".{name}-*.checkpoint*", 0)
    return recorded(store / name, config, *shas)


def recorded(path: Path, config: Config, data_sha: str, weights_sha: str | None) -> records.Run:
    """The record at `path`. Raises InputError if it is damaged, or of another config, other data or other weights."""
    run = records.load(path)
    contents = (run.info["data"]["fingerprint"], run.info["weights"]["sha256"])
    nowhere = {"data": "", "weights": ""}  # whose paths may be others tomorrow
    if run.info["config"] | nowhere != dataclasses.asdict(config) | nowhere or contents != (data_sha, weights_sha):
        raise InputError(
            f"the record {path} is that of another config, other data or weights; remove that folder to train it "
            "again, or use another store"
        )
    return run


def make(
    config: Config,
    images: data.Images,
    place: training.Place,
    store: Path,
    name: str,
    watch: training.Watch | None,
    net: nn.Module | None,
    step: training.Step,
    change: Change,
    keep: bool,
) -> None:
    """Trains one run, tests its selected epoch once, and stores the record.

    Raises InputError if the device lacks the memory or the store the room, and Diverged if a loss is no number.
    """
    made, before_all = provenance(place), cpu_seconds()  # now: the code may change meanwhile
    reset_peak_memory(place.device)
    if net is None:
        sha256 = models.weights_sha256(config.weights, config.network)
        net = models.build(config, images.classes, pretrained(config.weights, config.network, sha256))
        models.train_only(net, config)
    else:
        net = models.like(net, config)
    # Another device or precision goes on with its own bits only.
    checkpoint = store / f".{name}-{device_as_file_name(place.device)}-{place.precision}.checkpoint"
    try:
        task = loop.begin(net, images, config, place)
        with contextlib.nullcontext() if change else frozen_converted(task.module, place.precision):
            for history in loop.train(task, config, place, step, checkpoint):
                if watch:
                    watch(config, history.epochs)
            task.module.load_state_dict(history.state)
            clock = time.perf_counter()
            test_logits = loop.test(task, history, images, config, place)
            test_seconds = time.perf_counter() - clock
            loop.finish(net, task, history, config)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        half = config.batch_size // 2
        way = f"try BATCH={half}, half of it, or" if half else "no batch is smaller, so try"
        raise InputError(
            f"batch_size is {config.batch_size}, for which {device_name(place.device)} lacks the memory; {way} a "
            "smaller SIZE"
        ) from error
    info, arrays = describe(net, task, history, test_logits, images, config)
    loop.check_finite(info["test_loss"], "test", info["selected_epoch"], config)
    info |= {
        "modified": str(change) or None,
        "test_seconds": test_seconds,
        "peak_memory_mib": peak_memory_mib(place.device),
        "provenance": made | {"finished": now(), "others_share": others_share(before_all)},
    }
    tensors = kept_tensors(net, change) if keep or config.trains == "head" else None
    try:
        records.save(store, name, info, history.epochs, arrays, tensors)
    except OSError as error:
        raise InputError(
            f"runs is {str(store)!r}, where the record of this run cannot be written ({error.strerror or error}); make "
            "room or name another store, and run it again: slow epochs are kept in its checkpoint"
        ) from error
    sweep(store, f".{name}-*", 0)  # its checkpoint, and what killed predecessors left half-written


@contextlib.contextmanager
def frozen_converted(module: nn.Module, precision: str) -> Iterator[None]:
    """Within it, what lies frozen in `module` is in the precision that it is multiplied in. The results are the same
    bits, but autocast converts what does not learn anew for every batch. A notebook's own step may look at weights."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    frozen = [value for layer in layers for value in layer.parameters(recurse=False) if not value.requires_grad]
    kept = [value.data for value in frozen]
    try:
        for value in frozen if precision == "bfloat16" else ():
            value.data = value.data.to(torch.bfloat16)
        yield
    finally:
        for value, data in zip(frozen, kept, strict=True):
            value.data = data


def kept_tensors(net: nn.Module, change: Change) -> dict[str, Tensor]:
    """What the record must hold so that the trained network can be made again from the pretrained weights."""
    needed = {*models.trained_names(net), *(name for name, _ in net.named_buffers())}
    return {
        name: value.detach().float().cpu() if value.is_floating_point() else value.cpu()
        for name, value in net.state_dict().items()
        if change.network or name in needed
    }


def layer_changes(net: nn.Module, weights: models.Weights, config: Config) -> dict[str, float]:
    """How far training moved each layer from the pretrained `weights`; the head starts anew and is not among them.
    Empty where nothing below the head was trained, or the trunk was random before."""
    if config.trains == "head" or weights.sha256 is None:
        return {}
    before = pretrained(config.weights, config.network, weights.sha256).state or {}
    return models.layer_changes(models.of_trunk(config.network, before), net.state_dict())


def describe(
    net: nn.Module, task: training.Task, history: training.History, test_logits: Tensor, images: data.Images,
    config: Config,
) -> tuple[dict, dict]:  # fmt: skip
    """(what run.json, what predictions.npz says of a finished run)."""
    test_loss, test_accuracy = loop.score(test_logits, images.test_labels)
    train_seconds = task.start_seconds + task.features_seconds + sum(e["train_seconds"] for e in history.epochs)
    best, count = history.epochs[history.selected - 1], len(task.training.index)
    forward, backward = models.flops(net, config.image_size)
    weights, parameters = models.origin_of(net).weights, list(net.parameters())
    info = {
        "config": dataclasses.asdict(config),
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "train": count,
            "validation": len(data.split(images.train_labels, config)[1]),
            "test": len(images.test),
            "classes": list(images.classes),
            "stored_size": list(images.train.shape[1:3]),
            "facts": images.facts,
        },
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "network": {
            "name": NETWORKS[config.network].name,
            "key": config.network,
            "features": models.width_below(models.head_of(net, config)),
            "layers": digest(repr(net)),
        },
        "selected_epoch": history.selected,
        "selected_on": "test" if config.select_on_test else "validation",
        **{name: best[name] for name in ("validation_accuracy", "validation_loss")},
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "train_seconds": train_seconds,
        "features_seconds": task.features_seconds,
        "start_seconds": task.start_seconds,
        "validation_seconds": task.validation_features_seconds + sum(e["validation_seconds"] for e in history.epochs),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "forward_flops": forward,
        "backward_flops": backward,
        "layer_changes": layer_changes(net, weights, config),
    }
    arrays = {
        "test_logits": test_logits.numpy(),
        "test_labels": images.test_labels.numpy(),
        "validation_logits": history.validation_logits.numpy(),
        "validation_labels": task.validation.labels[task.validation.index].cpu().numpy(),
        "validation_index": task.validation.index.cpu().numpy(),
    }
    return info, arrays
