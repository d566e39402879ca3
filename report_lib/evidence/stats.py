"""Intervals and paired tests, with numpy and scipy.special. Accuracies are fractions, losses nats per sample."""

import dataclasses

import numpy as np
from scipy.special import bdtr, log_softmax, ndtri, softmax, stdtrit


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
    """b minus a on the same test images, with its 95 % interval and how that was made."""

    mean: float
    low: float
    high: float
    method: str
    p: float | None = None  # of McNemar's exact test, for right or wrong of one seed, or of several that are the same

    @property
    def clear(self) -> bool:
        """Whether the interval excludes no difference, and, with few discordant images, the exact test does too."""
        return (self.low > 0 or self.high < 0) and (self.p is None or self.p < 0.05)

    def __neg__(self) -> "Difference":
        """a minus b."""
        return dataclasses.replace(self, mean=-self.mean, low=-self.high, high=-self.low)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    share, z2 = successes / trials, float(ndtri(0.975)) ** 2
    half = (z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) ** 0.5
    low, high = ((share + z2 / (2 * trials) + side * half) / (1 + z2 / trials) for side in (-1, 1))
    return max(0.0, low) if successes else 0.0, min(1.0, high) if successes < trials else 1.0


def newcombe(successes: tuple[int, int], trials: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the second proportion minus the first, of samples apart (Newcombe 1998, method 10)."""
    first, second = (successes[at] / trials[at] for at in (0, 1))
    (low1, high1), (low2, high2) = (wilson(successes[at], trials[at]) for at in (0, 1))
    below = ((second - low2) ** 2 + (high1 - first) ** 2) ** 0.5
    above = ((high2 - second) ** 2 + (first - low1) ** 2) ** 0.5
    return second - first - below, second - first + above


def accuracy(right: np.ndarray) -> Estimate:
    """Accuracy from right or wrong, bool (seeds, N) on the same N test images.

    One seed: Wilson's interval. Several: that of `crossed_mean`, cut at 0 and 1; but Wilson's again where every seed
    gets every image right, or wrong, since that does not make new images certain.
    """
    seeds, images = right.shape
    mean = float(right.mean())
    low, high = wilson(round(mean * images), images)
    sd = float(right.mean(1).std(ddof=1)) if seeds > 1 else None
    half = crossed_mean(right)[1] if seeds > 1 and images > 1 else 0.0
    if half == 0:
        return Estimate(mean, sd, seeds, low, high, WILSON)
    return Estimate(mean, sd, seeds, max(0.0, mean - half), min(1.0, mean + half), CROSSED)


WILSON = "Wilson, over test images"
CROSSED = "seeds and test images crossed"


def crossed_mean(values: np.ndarray) -> tuple[float, float]:
    """(mean, half width of its 95 % interval) of (seeds, N) values for new seeds on new images.

    Seeds and images are crossed random effects. The mean's variance is that between the seeds' means, which holds the
    residual too, plus that of images beyond the residual; the half widths that each would have alone, by Student's t
    with n - 1 and N - 1 degrees of freedom, are added as squares (after Howe 1974). Seeds whose means agree by chance
    do not make it narrower than new images alone would, for these seeds. `tests/test_stats.py` simulates how often it
    holds the truth.
    """
    seeds, images = values.shape
    by_seed, by_image, residual = _variances(np.asarray(values, float))
    of_seeds, of_images = (float(stdtrit(freedom, 0.975)) ** 2 for freedom in (seeds - 1, images - 1))
    squares = of_seeds * by_seed + of_images * max(0.0, by_image - residual)
    return float(np.mean(values)), float(max(squares, of_images * by_image) ** 0.5)


def _variances(values: np.ndarray) -> np.ndarray:
    """What seeds, images and residual of the two-way layout (seeds, N) each contribute to the variance of its mean."""
    seeds, images = values.shape
    by_seed, by_image = values.mean(1), values.mean(0)
    residual = values - by_seed[:, None] - by_image[None] + values.mean()
    return np.array([by_seed.var(ddof=1) / seeds, by_image.var(ddof=1) / images,
                     (residual**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)])  # fmt: skip


def bootstrap(values: np.ndarray, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of (seeds, N) values, seeds and images both drawn with replacement.

    After Efron and Tibshirani (1993), chapter 13. A handful of seeds holds too little of their variance to draw from:
    where seeds matter, its interval is too narrow below some ten of them (`tests/test_stats.py` has the figures).
    """
    values = np.asarray(values, float)
    rng, (seeds, images) = np.random.default_rng(seed), values.shape
    means = np.empty(resamples)
    for start in range(0, resamples, 200):  # 200 at a time keeps 10,000 images within 16 MB
        size = min(200, resamples - start)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size) @ values / seeds  # (size, N)
        means[start : start + size] = drawn[np.arange(size)[:, None], rng.integers(images, size=(size, images))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[int, int, float]:
    """(images only a gets right, images only b gets right, exact two-sided p), for bool (N,) on the same images.

    Under equal accuracy each discordant image is a fair coin (McNemar 1947, exact binomial form).
    """
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_difference(a: np.ndarray, b: np.ndarray, resamples: int = 10_000) -> Difference:
    """Difference of means b - a of per-image values (seeds, N) of runs that share seeds and test images.

    One seed, or a single image: `bootstrap`. Several: `crossed_mean`.
    """
    per_image = np.asarray(b, float) - np.asarray(a, float)
    mean = float(per_image.mean())
    rights = a.dtype == b.dtype == bool
    half, method = 0.0, f"{CROSSED}, paired"
    if min(per_image.shape) > 1:
        half = crossed_mean(per_image)[1]
        bound = 1.0 if rights else np.inf  # accuracies are not further apart
        low, high = max(-bound, mean - half), min(bound, mean + half)
    else:
        low, high = bootstrap(per_image, resamples)
        method = f"paired bootstrap over test images, {resamples:,} resamples"
    p = mcnemar(a[0], b[0])[2] if rights and not half else None
    return Difference(mean, low, high, method, p)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each sample, nats (N,): -log softmax(logits)[label], in float64."""
    return -log_softmax(logits.astype(float), axis=1)[np.arange(len(labels)), labels]


# --- calibration -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Test samples in bins of equal width by confidence; empty bins are left out. Fractions."""

    confidence: np.ndarray  # mean of each bin
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean |accuracy - confidence|, weighted by count (Guo et al. 2017)."""
        return float(np.abs(self.accuracy - self.confidence) @ self.count / self.count.sum())


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """How often predictions of a confidence (largest softmax probability) are right."""
    probability = softmax(logits.astype(float), axis=1)
    confidence, right = probability.max(1), probability.argmax(1) == labels
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(where, minlength=bins)
    full = count > 0
    sums = [np.bincount(where, weights=values, minlength=bins)[full] for values in (confidence, right)]
    return Reliability(sums[0] / count[full], sums[1] / count[full], count[full])


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T > 0 for which logits / T have the least cross-entropy (Guo et al. 2017); fit it on validation samples.

    1 where all of them are right, since the least would then be at T = 0.
    """
    from scipy import optimize  # late: half a second, of which the approaches' own notebooks need nothing

    if (logits.argmax(1) == labels).all():
        return 1.0
    least = optimize.minimize_scalar(
        lambda log_t: cross_entropy(logits / np.exp(log_t), labels).mean(), bounds=(-4, 4), method="bounded"
    )
    return float(np.exp(least.x))
