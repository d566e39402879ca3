"""The machine a run is made on: its device, precision and memory, and what of it the record should say."""

import contextlib
import ctypes
import datetime
import importlib.metadata
import platform
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from report_lib.recipe import DEVICES, PROJECT, InputError, source_hash

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "pandas")
NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


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


def room_for(size: int, device: torch.device) -> bool:
    """Whether `size` bytes may be moved to the device for good, leaving most of it to the work itself."""
    return device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 4


def lacks_memory(error: RuntimeError) -> bool:
    """Whether `error` is torch's, or that of a library below it, for memory that could not be had."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in NO_MEMORY)


def finished(device: torch.device) -> None:
    """Returns when the device has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory() -> None:
    """Asks glibc to reuse freed memory, not to return it: each training step takes the same hundreds of megabytes.

    Otherwise the kernel maps and zeroes them page by page in every step, a tenth of the time on a CPU. Where there is
    no glibc, nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no separate mapping for large blocks
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


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
    """Where, when and with what a run is made; what cannot be found out is None."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "started": started.isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "code": source_hash(),
        "command": _command(Path(sys.argv[0]), sys.argv[1:]),
        "device": device_name(device),
        "driver": _driver(device),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "python": platform.python_version(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed and say so."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, KeyError):
            found[name] = str(importlib.metadata.version(name))
    return found


def where(device: torch.device) -> str:
    """The device, with the number of threads of a CPU, as part of a file's name."""
    name = device_name(device) if device.type != "cpu" else f"cpu{torch.get_num_threads()}"
    return re.sub(r"\W+", "_", name)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _command(program: Path, arguments: list[str]) -> str:
    if "ipykernel" in program.name:
        return "notebook"  # its arguments are a connection file of no lasting meaning
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *arguments])


def _driver(device: torch.device) -> str | None:
    """Versions of CUDA and of the GPU's driver; None for other devices."""
    if device.type != "cuda":
        return None
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return f"CUDA {torch.version.cuda}, driver {driver}"


def _git(*arguments: str) -> str | None:
    """git's answer about this project, or None where it is no repository or git is missing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
