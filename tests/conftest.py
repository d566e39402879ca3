import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_up import CLASSES, record
from PIL import Image

from report_lib import data, plan

PROJECT = Path(__file__).resolve().parents[1]

# Files that take minutes, the longest first: a worker that started one of them last would finish alone.
LONG = ("test_make", "test_nbval", "test_report", "test_survival", "test_slurm", "test_lab", "test_bench", "test_stats")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


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


@pytest.fixture
def study(tmp_path):
    """make(accuracy of (approach, what) or a number, **parameters) -> Evidence of made-up runs."""

    def make(accuracy, classes=CLASSES, **parameters):
        store = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        for approach in ("linear_probe", "full_finetune"):
            for what, some in plan.plan(approach, **parameters).items():
                for recipe in some:
                    share = accuracy(approach, what) if callable(accuracy) else accuracy
                    record(store, recipe, share, classes)
        return plan.read(store, **parameters)

    return make
