"""Runs -> the numbers that tables, plots, words and results.json show; what is costly is computed once.

A study's approaches are each compared with its first one, by seed and test image. Accuracies are fractions, times
seconds, losses nats per sample.
"""

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import softmax

from report_lib.config import APPROACHES
from report_lib.evidence import stats
from report_lib.evidence.stats import Difference, Estimate
from report_lib.files import InputError
from report_lib.runs import Run, Runs, Study


def once(compute: Callable) -> Callable:
    """Computes each value a single time; lists of runs, as a notebook makes them, do as well as tuples."""
    cached = functools.cache(compute)

    @functools.wraps(compute)
    def look_up(*given: Any) -> Any:
        return cached(*(tuple(value) if isinstance(value, list) else value for value in given))

    return look_up


# --- one approach ----------------------------------------------------------------------------------------------


@once
def predicted(run: Run) -> np.ndarray:
    """The class that each test image is given, int (N,)."""
    return run.predictions["test_logits"].argmax(1)


@once
def right(runs: Runs) -> np.ndarray:
    """Right or wrong, bool (seeds, N), of each test image."""
    return np.array([predicted(run) == run.predictions["test_labels"] for run in runs])


@once
def losses(runs: Runs) -> np.ndarray:
    """Loss of each test image, float64 (seeds, N)."""
    return np.array([stats.cross_entropy(r.predictions["test_logits"], r.predictions["test_labels"]) for r in runs])


@once
def accuracy(runs: Runs) -> Estimate:
    """Test accuracy of all seeds, with its interval."""
    return stats.accuracy(right(runs))


def mean_of(runs: Runs, name: str) -> float:
    """Mean over seeds of a number of run.json."""
    return float(np.mean([run.info[name] for run in runs]))


def probabilities(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(softmax, float64 (N, classes); labels (N,)) of its test images."""
    return softmax(run.predictions["test_logits"].astype(float), axis=1), run.predictions["test_labels"]


@once
def confusion(runs: Runs) -> np.ndarray:
    """Counts (classes, classes), row true, column predicted, of the test images of all seeds together."""
    classes = len(runs[0].classes)
    pairs = np.concatenate([run.predictions["test_labels"] * classes + predicted(run) for run in runs])
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@once
def standard_errors(runs: Runs) -> tuple[float, float]:
    """Standard errors of one run's accuracy and loss at the selected epoch, caused by the finite number of images that
    selected it."""
    errors = []
    for arrays in (run.predictions for run in runs):
        part = "validation" if len(arrays["validation_labels"]) else "test"
        logits, labels = arrays[f"{part}_logits"], arrays[f"{part}_labels"]
        hits, loss = logits.argmax(1) == labels, stats.cross_entropy(logits, labels)
        errors.append([values.std() / len(labels) ** 0.5 for values in (hits, loss)])
    of_accuracy, of_loss = np.mean(errors, axis=0)
    return float(of_accuracy), float(of_loss)


def test_interval(run: Run) -> tuple[float, float]:
    """Wilson's interval of one run's test accuracy."""
    images = run.info["data"]["test"]
    return stats.wilson(round(run.info["test_accuracy"] * images), images)


def selection_gap(run: Run) -> Difference | None:
    """Test minus validation accuracy of a run's selected epoch; None if the test images selected it."""
    if run.info["selected_on"] != "validation":
        return None
    images = (run.info["data"]["validation"], run.info["data"]["test"])
    values = (run.info["validation_accuracy"], run.info["test_accuracy"])
    interval = stats.newcombe((round(values[0] * images[0]), round(values[1] * images[1])), images)
    return Difference(values[1] - values[0], *interval, "Newcombe, two samples")


@once
def gap(runs: Runs) -> Difference | None:
    """Test minus validation accuracy at the selected epochs of all seeds, each within its own run; None if the test
    images selected them."""
    if len(runs) == 1 or runs[0].info["selected_on"] != "validation":
        return selection_gap(runs[0])
    tested = right(runs).astype(float)
    held_out = np.array([run.info["validation_accuracy"] for run in runs])
    return stats.paired_difference(np.broadcast_to(held_out[:, None], tested.shape), tested)


@once
def mistakes(run: Run, count: int = 8) -> np.ndarray:
    """Indices of the wrongly predicted test images, those with the largest softmax probability first."""
    probability, labels = probabilities(run)
    wrong = np.flatnonzero(probability.argmax(1) != labels)
    return wrong[np.argsort(-probability.max(1)[wrong], kind="stable")][:count]


def shown(study: Study) -> list[Runs]:
    """The runs of every approach with the presented preset, then with its best one, where that is another."""
    return list(dict.fromkeys([*study.of().values(), *study.best.values()]))


def moved(runs: Runs) -> dict[str, float]:
    """Layer -> relative change of its weights, mean over the seeds; empty where it is frozen or was random before, and
    in records of before changes were recorded."""
    each = [run.info.get("layer_changes", {}) for run in runs]
    return {name: float(np.mean([changes[name] for changes in each])) for name in each[0]} if all(each) else {}


# --- calibration -----------------------------------------------------------------------------------------------


@once
def temperature(run: Run) -> float:
    """Fitted on the validation images, of which a run that the test images selected has none."""
    return stats.temperature(run.predictions["validation_logits"], run.predictions["validation_labels"])


@once
def reliability(runs: Runs, scaled: bool) -> stats.Reliability:
    """Reliability on the test images of all seeds together; `scaled` by each one's temperature."""
    logits = [run.predictions["test_logits"] / (temperature(run) if scaled else 1.0) for run in runs]
    return stats.reliability(np.concatenate(logits), np.concatenate([run.predictions["test_labels"] for run in runs]))


@once
def calibration(runs: Runs) -> dict | None:
    """Calibration on the test images, as trained and temperature-scaled, means over seeds; `overconfidence` is mean
    confidence minus accuracy, over all seeds and images together. None where the test images selected the epoch."""
    if any(run.info["selected_on"] == "test" for run in runs):
        return None
    rows = []
    for run in runs:
        t, logits, labels = temperature(run), run.predictions["test_logits"], run.predictions["test_labels"]
        pair = (logits, logits / t)
        rows.append((t, *(stats.reliability(values, labels).error for values in pair),
                     *(stats.cross_entropy(values, labels).mean() for values in pair)))  # fmt: skip
    names = ("temperature", "ece", "ece_scaled", "test_loss", "test_loss_scaled")
    confidence = np.array([probabilities(run)[0].max(1) for run in runs])
    return {
        **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
        "temperatures": [row[0] for row in rows],
        "overconfidence": stats.paired_difference(right(runs).astype(float), confidence),
    }


# --- approaches compared ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs b against runs a of the same seeds, paired on the same test images; differences are b minus a."""

    a: Runs
    b: Runs

    @functools.cached_property
    def accuracy(self) -> Difference:
        return stats.paired_difference(right(self.a), right(self.b))

    @functools.cached_property
    def loss(self) -> Difference:
        return stats.paired_difference(losses(self.a), losses(self.b))

    @functools.cached_property
    def classes(self) -> list[Difference]:
        """Difference in accuracy on the test images of each class."""
        a, b, labels = right(self.a), right(self.b), self.a[0].predictions["test_labels"]
        of_class = [labels == label for label in range(len(self.a[0].classes))]
        return [stats.paired_difference(a[:, chosen], b[:, chosen], 2_000) for chosen in of_class]

    @functools.cached_property
    def counts(self) -> list[dict]:
        """For each seed, the test images that both, only one, or neither gets right; and McNemar's p."""
        rows = []
        for run, a, b in zip(self.a, right(self.a), right(self.b), strict=True):
            only_a, only_b, p = stats.mcnemar(a, b)
            both, neither = int((a & b).sum()), int((~a & ~b).sum())
            rows.append(
                {"seed": run.seed, "both": both, "only_a": only_a, "only_b": only_b, "neither": neither, "p": p}
            )
        return rows

    @property
    def same_images_right(self) -> bool:
        return bool((right(self.a) == right(self.b)).all())

    @property
    def seeds_won(self) -> tuple[int, int]:
        """With how many seeds b has the higher test accuracy, and with how many both have the same."""
        gains = right(self.b).sum(1) - right(self.a).sum(1)
        return int((gains > 0).sum()), int((gains == 0).sum())

    @property
    def times(self) -> tuple[float, float, float] | None:
        """(ratio of the mean training times, the least and the greatest of a seed); None across devices."""
        if len({device_of((run,)) for run in (*self.a, *self.b)}) > 1:
            return None
        ratios = [b.info["train_seconds"] / a.info["train_seconds"] for a, b in zip(self.a, self.b, strict=True)]
        return mean_of(self.b, "train_seconds") / mean_of(self.a, "train_seconds"), min(ratios), max(ratios)


@once
def compare(a: Runs, b: Runs) -> Comparison:
    """`b` against `a`, by the seeds that both have."""
    shared = {run.seed for run in a} & {run.seed for run in b}
    return Comparison(*(tuple(run for run in runs if run.seed in shared) for runs in (a, b)))


def comparisons(runs: Mapping[str, Runs]) -> list[Comparison]:
    """Each approach with the first of `runs` (approach -> runs)."""
    every = list(runs.values())
    return [compare(every[0], other) for other in every[1:]]


def budget_curve(study: Study) -> list[tuple[float, dict[str, Runs]]]:
    """(labelled images per class, validation included; approach -> its best preset's runs), ascending, with the
    study's own number; empty where it has no budgets. One that no class can fill is the same as all images."""

    def labelled(runs: Runs) -> int:
        return runs[0].info["data"]["train"] + runs[0].info["data"]["validation"]

    points: dict[int, dict[str, Runs]] = {}
    everything = max(map(labelled, study.best.values()))
    for approach in study.approaches:
        for runs in study.side(approach, "budget").values():
            if labelled(runs) != everything:
                points.setdefault(labelled(runs), {})[approach] = runs
    if not points:
        return []
    classes = len(study.first.classes)
    points[everything] = study.best
    return [(count / classes, points[count]) for count in sorted(points)]


# --- what runs are of ------------------------------------------------------------------------------------------


def the(runs: Runs) -> str:
    """The approach's name within a sentence."""
    return APPROACHES[runs[0].approach].the


def is_cifar10(run: Run) -> bool:
    """Whether the data have the classes of CIFAR-10 and as many test images."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return sorted(run.classes) == names and run.info["data"]["test"] == 10_000


def check_images(run: Run, fingerprint: str) -> None:
    """Raises InputError if images with this fingerprint are not those that the run was made with."""
    if run.info["data"]["fingerprint"] != fingerprint:
        raise InputError(
            f"data is {run.info['config']['data']!r}, whose images have changed since {run.path.name} was trained; run "
            "the notebooks of all approaches again"
        )


def device_of(runs: Runs) -> str:
    """What the runs were computed on, and how precisely: a GPU's name, or CPU with its number of threads."""
    devices = []
    for origin in (run.info["provenance"] for run in runs):
        threads = f"{origin['threads']} thread{'s' * (origin['threads'] != 1)}"
        where = origin["device"] if origin["device"] != "cpu" else f"CPU ({threads})"
        devices.append(f"{where}, {origin['precision']}")
    return "; ".join(dict.fromkeys(devices))


def command_of(run: Run) -> str:
    """What started the run, without the folders of paths: those of one machine say nothing on another."""
    return shlex.join(map(without_folder, shlex.split(run.info["provenance"]["command"])))


def without_folder(word: str) -> str:
    """A path's last part, also after `--option=`; other words as they are."""
    return re.sub(r"^(--[^=/]*=)?.*/(?=[^/])", r"\1", word)
