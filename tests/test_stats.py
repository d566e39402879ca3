import numpy as np
import pytest
from scipy.special import log_softmax

from report_lib import stats


def test_wilson_is_the_worked_example():
    # Agresti and Coull (1998), The American Statistician 52: 0 and 9 successes of 10 by the score method.
    assert stats.wilson(0, 10) == pytest.approx((0.0, 0.278), abs=5e-4)
    assert stats.wilson(9, 10) == pytest.approx((0.596, 0.982), abs=5e-4)


def test_one_seed_has_the_interval_of_its_test_images():
    estimate = stats.accuracy([0.8], 1000)
    assert (estimate.mean, estimate.sd, estimate.n) == (0.8, None, 1)
    assert (estimate.low, estimate.high) == stats.wilson(800, 1000) and "Wilson" in estimate.method


def test_several_seeds_have_students_interval():
    estimate = stats.accuracy([0.70, 0.72, 0.74], 1000)
    assert estimate.sd == pytest.approx(0.02)
    half = 4.3027 * 0.02 / 3**0.5  # t of 0.975 with 2 degrees of freedom, from a printed table
    assert (estimate.low, estimate.high) == pytest.approx((0.72 - half, 0.72 + half), abs=1e-5)


def test_mcnemar_is_a_fair_coin_on_the_discordant_images():
    a = np.array([1] * 50 + [1] * 2 + [0] * 8 + [0] * 5, bool)
    b = np.array([1] * 50 + [0] * 2 + [1] * 8 + [0] * 5, bool)
    only_a, only_b, p = stats.mcnemar(a, b)
    assert (only_a, only_b) == (2, 8)
    assert p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # both tails of Binomial(10, 1/2) at 2 or fewer
    assert stats.mcnemar(a, a) == (0, 0, 1.0)


def test_cross_entropy_is_that_of_scipy_and_survives_large_logits():
    logits = np.random.default_rng(0).normal(0, 50, (20, 4)).astype(np.float32)
    labels = np.arange(20) % 4
    expected = -log_softmax(logits.astype(float), axis=1)[np.arange(20), labels]
    np.testing.assert_allclose(stats.cross_entropy(logits, labels), expected, atol=1e-9)
    assert np.isfinite(stats.cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))).all()


def test_confusion_counts_true_by_predicted():
    counts = stats.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (1, 2000)), rng.normal(0.1, 1, (1, 2000))
    difference = stats.paired_bootstrap(a, b)
    spread = 1.96 * (b - a).std(ddof=1) / 2000**0.5
    assert difference.mean == pytest.approx((b - a).mean())
    assert (difference.low, difference.high) == pytest.approx(
        (difference.mean - spread, difference.mean + spread), abs=0.1 * spread
    )


def test_bootstrap_over_seeds_is_wider_when_seeds_differ():
    a = np.zeros((4, 500))
    same, apart = np.full((4, 500), 0.1), np.array([0.0, 0.05, 0.15, 0.2])[:, None] * np.ones((4, 500))
    narrow, wide = stats.paired_bootstrap(a, same, 500), stats.paired_bootstrap(a, apart, 500)
    assert narrow.high - narrow.low < 1e-9 and narrow.clear
    assert wide.mean == pytest.approx(0.1) and wide.high - wide.low > 0.1


def test_intervals_cover_what_they_claim():
    """95 % intervals of 400 simulated experiments hold the truth in 95 % of them, within simulation error."""
    rng = np.random.default_rng(2)
    covered = {"wilson": 0, "t": 0, "bootstrap": 0}
    for _ in range(400):
        low, high = stats.wilson(int(rng.binomial(300, 0.8)), 300)
        covered["wilson"] += low <= 0.8 <= high
        estimate = stats.accuracy(list(rng.normal(0.8, 0.01, 5)), 300)
        covered["t"] += estimate.low <= 0.8 <= estimate.high
        a, b = rng.random((1, 300)) < 0.7, rng.random((1, 300)) < 0.8
        difference = stats.paired_bootstrap(a, b, 400, seed=int(rng.integers(2**31)))
        covered["bootstrap"] += difference.low <= 0.1 <= difference.high
    assert all(0.92 <= count / 400 <= 0.98 for count in covered.values()), covered
