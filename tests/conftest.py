import functools
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

# Two workers share the cores: threads that spin while they wait take them from each other. Read as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import project
import pytest
import torch
from PIL import Image

from report_lib import config, data

# The tests are about the approaches that come with the project; who adds one changes no test.
for added in {*config.APPROACHES} - {*project.OURS}:
    del config.APPROACHES[added]
declared = config.parameters.PARAMETERS["defects"]
declared.metadata = declared.metadata | {"each": tuple(config.APPROACHES)}

# Files that take minutes, the longest first: a worker that started one of them last would finish alone.
LONG = [
    "nbval",
    "make",
    "report",
    "training",
    "survival",
    "teaching",  # after report, whose runs it shows
    "runs",
    "extending",
    "bench",
    "lab",
    "browser",
    "evidence",
    "slurm",
]


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: LONG.index(name) if (name := item.path.stem.removeprefix("test_")) in LONG else len(LONG)
    )


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's cache and run store."""
    monkeypatch.setenv("REPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPORT_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def tree(tmp_path):
    """make(classes, sizes) writes a tree of small PNGs, a colour for each class, and returns its path."""

    def make(classes=("cat", "dog"), train=5, test=2, size=(12, 10), name="tree"):
        rng = np.random.default_rng(0)
        root = tmp_path / name
        for part, count in (("train", train), ("test", test)):
            for label, cls in enumerate(classes):
                folder = root / part / cls
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 80, (size[1], size[0], 3), np.uint8)
                    pixels[..., label % 3] += 120
                    Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def tar(tmp_path):
    """make({name: bytes}) writes a tar archive and returns its path; a TarInfo as value is added as it is."""

    def make(members, name="made.tar.gz"):
        path = tmp_path / name
        with tarfile.open(path, f"w:{name.rsplit('.', 1)[-1]}") as archive:
            for member, content in members.items():
                info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(member)
                if isinstance(content, bytes):
                    info.size = len(content)
                archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return path

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Runs and caches that copies of the project share, those of all workers: the same run is trained once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def few_digits():
    """The demo's digits, cut to 60 training and 20 test images."""
    whole = data.load("digits", 64)
    return data.Images(
        whole.name, whole.classes, whole.train[:60], whole.train_labels[:60], whole.test[:20], whole.test_labels[:20],
        "few digits",
    )  # fmt: skip


@pytest.fixture(scope="session")
def cifar10_archive():
    """The archive of CIFAR-10 as JPEG that CIFAR10_ARCHIVE names; tests that need it skip without."""
    path = os.environ.get("CIFAR10_ARCHIVE", "")
    if not path or not Path(path).is_file():
        pytest.skip("CIFAR10_ARCHIVE names no file")
    return path


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that this machine already has; tests that need it skip where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def small():
    """small(approach, preset, **fields) -> a config that trains in a second: a small network of random weights."""

    def make(approach="linear_probe", preset="corrected", **fields):
        shared = {"network": "mobilenet_v3_small", "weights": "none", "image_size": 32, "batch_size": 8, "epochs": 1,
                  "precision": "float32"}  # fmt: skip
        return config.preset(approach, preset, **(shared | fields))

    return make


@pytest.fixture
def last_block(monkeypatch):
    """A third approach, as the README registers one: trained are the last block and the head."""
    approach = config.registries.Approach("last-block tuning", "last_block", "#009E73", "^")
    monkeypatch.setitem(config.APPROACHES, "last_block", approach)
    declared = config.FIELDS["approach"]  # what is allowed was written down before it came
    monkeypatch.setattr(declared, "metadata", declared.metadata | {"allowed": tuple(config.APPROACHES)})


@pytest.fixture
def single_thread():
    """Bits that are compared with those of another process are made on one thread, as there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def study(tmp_path):
    """study(accuracy of (approach, kind, value) or a number, **parameters) -> Study of made-up runs."""
    import made_up

    return functools.partial(made_up.study, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """make(megabytes) -> a folder on a file system of that size; skips where none can be mounted."""
    mounted = []

    def make(megabytes):
        path = tmp_path / f"disk{megabytes}"
        path.mkdir()
        size = f"size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(path)
        return path

    if not shutil.which("mount"):
        pytest.skip("no tmpfs can be mounted here")
    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=False)
