"""Where, when and with what a run was made."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from report_lib.files import PROJECT
from report_lib.training import code_hash
from report_lib.training.device import Place, device_name

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "pandas")


def provenance(place: Place) -> dict:
    """What the record of a run that starts now says of its making; what cannot be found out is None."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "started": now(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "code": code_hash(),
        "command": _command(Path(sys.argv[0]), sys.argv[1:]),
        "device": device_name(place.device),
        "cuda": torch.version.cuda if place.device.type == "cuda" else None,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": place.precision,
        "python": platform.python_version(),
        "packages": packages(),
    }


def cpu_seconds() -> tuple[float, float, float] | None:
    """(a clock, the CPU seconds that all processes of this machine took until now, those of this one); None where the
    system does not say (it does on Linux)."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    except (OSError, ValueError, IndexError):
        return None
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, time.process_time()


def others_share(before: tuple[float, float, float] | None) -> float | None:
    """The share of the machine's processors that other processes have kept busy since `before`, of `cpu_seconds`."""
    after = cpu_seconds()
    if before is None or after is None:
        return None
    seconds, busy, own = (later - earlier for earlier, later in zip(before, after, strict=True))
    return min(max((busy - own) / seconds / (os.cpu_count() or 1), 0.0), 1.0)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed and say so."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, KeyError):
            versions[name] = str(importlib.metadata.version(name))
    return versions


def _command(program: Path, arguments: list[str]) -> str:
    if "ipykernel" in program.name:
        return "notebook"  # its arguments are a connection file of no lasting meaning
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *arguments])


def _git(*arguments: str) -> str | None:
    """git's answer about this project, whoever owns its folder; None where it is no repository or git is missing."""
    asked = ["git", "-c", f"safe.directory={PROJECT}", *arguments]
    try:
        done = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
