"""The device that computes a run, and its memory."""

import contextlib
import dataclasses
import re
import resource
import sys
from pathlib import Path

import torch

from report_lib.config.parameters import DEVICES
from report_lib.files import CACHE, InputError, folder
from report_lib.training.precision import pick_precision

NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is computed: device and precision, and the folder that keeps frozen features."""

    device: torch.device
    precision: str
    cache: Path


def place(device: str = "auto", precision: str = "auto", cache: str = "") -> Place:
    """The place that these names mean on this machine. Raises InputError for a device that is not there."""
    chosen = pick_device(device)
    return Place(chosen, pick_precision(precision, chosen), folder(cache, *CACHE))


def pick_device(device: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises InputError if a named device is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if device not in DEVICES or not there[device]:
        usable = ", ".join(["auto", *(kind for kind, available in there.items() if available)])
        raise InputError(f"device is {device!r}; this machine has {usable}")
    return torch.device(device)


def room_for(size: int, device: torch.device) -> bool:
    """Whether `size` bytes may be moved to the device for good, leaving most of it to the work itself."""
    return device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 4


def lacks_memory(error: RuntimeError) -> bool:
    """Whether `error` is torch's, or that of a library below it, for memory that could not be had."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in NO_MEMORY)


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def own_random_state(device: torch.device) -> contextlib.AbstractContextManager:
    """Within it, seeding and drawing leave the caller's random state alone."""
    return torch.random.fork_rng([device.index or 0] if device.type == "cuda" else [])


def reset_peak_memory(device: torch.device) -> None:
    """Starts the measurement that `peak_memory_mib` ends, as far as the system allows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux alone can forget a process's peak
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Most memory held since `reset_peak_memory`: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, but bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    """A GPU's own name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def as_file_name(device: torch.device) -> str:
    """The device, with the number of threads of a CPU, as part of a file's name."""
    name = device_name(device) if device.type != "cpu" else f"cpu{torch.get_num_threads()}"
    return re.sub(r"\W+", "_", name)
