"""Intervals and paired tests; numpy and scipy only. Accuracies are fractions, losses nats per sample."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and how that interval was made."""

    mean: float
    sd: float | None  # between seeds (n - 1 in the denominator); None for a single one
    n: int  # seeds
    low: float
    high: float
    method: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """b minus a on the same test images, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    interval = scipy_stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(per_seed: Sequence[float], images: int) -> Estimate:
    """Test accuracy: over seeds by Student's t, or of a single run by Wilson's interval over its test images."""
    if len(per_seed) == 1:
        low, high = wilson(round(per_seed[0] * images), images)
        return Estimate(per_seed[0], None, 1, low, high, "Wilson, over test images")
    mean, sd = float(np.mean(per_seed)), float(np.std(per_seed, ddof=1))
    half = float(scipy_stats.t.ppf(0.975, len(per_seed) - 1)) * sd / len(per_seed) ** 0.5
    return Estimate(mean, sd, len(per_seed), mean - half, mean + half, "Student's t, over seeds")


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[int, int, float]:
    """(images only a gets right, images only b gets right, exact two-sided p), for bool (N,) on the same images.

    Under equal accuracy each discordant image is a fair coin (McNemar 1947, exact binomial form).
    """
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(scipy_stats.binomtest(only_b, only_a + only_b).pvalue)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Difference of means b - a of per-image values (seeds, N), resampling images, and seeds where there are several.

    Percentile interval (Efron and Tibshirani 1993, chapter 13). A seed's two runs share a split and stay a pair.
    """
    per_image = np.asarray(b, float) - np.asarray(a, float)
    seeds, images = per_image.shape
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 200):  # 200 at a time keeps 10,000 images within 16 MB
        size = min(200, resamples - start)
        drawn = rng.integers(images, size=(size, images))
        if seeds == 1:
            means[start : start + size] = per_image[0][drawn].mean(1)
        else:
            for row, who in enumerate(rng.integers(seeds, size=(size, seeds))):
                means[start + row] = per_image[who].mean(0)[drawn[row]].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(per_image.mean()), float(low), float(high))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each sample, nats (N,): -log softmax(logits)[label], in float64."""
    logits = logits.astype(float)
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row true, column predicted."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
