import numpy as np
import pytest
from scipy.special import log_softmax

from report_lib import stats


def test_wilson_is_the_worked_example():
    # Agresti and Coull (1998), The American Statistician 52: 0 and 9 successes of 10 by the score method.
    assert stats.wilson(0, 10) == pytest.approx((0.0, 0.278), abs=5e-4)
    assert stats.wilson(9, 10) == pytest.approx((0.596, 0.982), abs=5e-4)


def test_one_seed_has_the_interval_of_its_test_images():
    estimate = stats.accuracy(np.arange(1000)[None] < 800)
    assert (estimate.mean, estimate.sd, estimate.n) == (0.8, None, 1)
    assert (estimate.low, estimate.high) == stats.wilson(800, 1000) and "Wilson" in estimate.method


def test_seeds_that_differ_on_endless_images_have_students_interval():
    values = np.array([0.70, 0.72, 0.74])[:, None] * np.ones((3, 50))
    mean, half = stats.crossed_mean(values)
    assert mean == pytest.approx(0.72)
    assert half == pytest.approx(4.3027 * 0.02 / 3**0.5, abs=1e-5)  # t of 0.975, 2 degrees of freedom, printed table


def test_seeds_that_agree_have_the_interval_of_their_images():
    values = np.tile(np.random.default_rng(0).normal(size=400), (5, 1))
    assert stats.crossed_mean(values)[1] == pytest.approx(1.966 * values[0].std(ddof=1) / 20, rel=1e-3)


def test_an_accuracy_stays_between_0_and_1_and_is_never_certain():
    estimate = stats.accuracy(np.arange(100)[None] < np.array([[97], [99]]))
    assert estimate.sd == pytest.approx(0.01414, abs=1e-4) and 0 < estimate.low < 0.97 and estimate.high == 1.0
    certain = stats.accuracy(np.ones((3, 4), bool))
    assert certain.low == stats.wilson(4, 4)[0] < 0.6 and certain.high == 1.0


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
    difference = stats.paired_difference(a, b)
    spread = 1.96 * (b - a).std(ddof=1) / 2000**0.5
    assert difference.mean == pytest.approx((b - a).mean())
    assert (difference.low, difference.high) == pytest.approx(
        (difference.mean - spread, difference.mean + spread), abs=0.1 * spread
    )


def test_seeds_that_differ_widen_the_interval():
    a = np.zeros((4, 500))
    same, apart = np.full((4, 500), 0.1), np.array([0.0, 0.05, 0.15, 0.2])[:, None] * np.ones((4, 500))
    narrow, wide = stats.paired_difference(a, same), stats.paired_difference(a, apart)
    assert narrow.high - narrow.low < 1e-9 and narrow.clear
    assert wide.mean == pytest.approx(0.1) and wide.high - wide.low > 0.1


def experiment(rng, seeds, images=300, spread=0.02):
    """(a, b): right or wrong (seeds, images), where images differ in difficulty and seeds in skill; b is 0.1 better."""
    difficulty = rng.normal(0, 0.1, images)
    skill = rng.normal(0, spread, (seeds, 1))
    chance = np.clip(0.6 + difficulty, 0, 1)
    return rng.random((seeds, images)) < chance, rng.random((seeds, images)) < np.clip(chance + 0.1 + skill, 0, 1)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_intervals_of_differences_cover_what_they_claim(seeds):
    """95 % intervals hold the truth in 93 to 97 % of 2,000 simulated experiments, like a study's in size and spread."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(2000):
        found = stats.paired_difference(*experiment(rng, seeds, spread=0.02 if seeds > 1 else 0.0), resamples=400)
        held += found.low <= 0.1 <= found.high
    assert 0.93 <= held / 2000 <= 0.97, held / 2000


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_intervals_of_accuracies_cover_what_they_claim(seeds):
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        estimate = stats.accuracy(experiment(rng, seeds, spread=0.02 if seeds > 1 else 0.0)[1])
        held += estimate.low <= 0.7 <= estimate.high
    assert 0.93 <= held / 2000 <= 0.97, held / 2000


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("unlike", [False, True])
def test_intervals_of_classes_cover_what_they_claim(seeds, unlike):
    """200 experiments of ten classes each; seeds matter alike for all of them, or for some three times as much."""
    rng = np.random.default_rng(6)
    labels, held = np.repeat(np.arange(10), 100), 0
    for _ in range(200):
        truth = rng.uniform(0.35, 0.9, 10)
        skill = np.zeros(10) if seeds == 1 else rng.uniform(0.02, 0.06, 10) if unlike else np.full(10, 0.03)
        by_class = truth + skill * rng.uniform(-1, 1, (seeds, 10))
        found = stats.class_accuracies(rng.random((seeds, 1000)) < by_class[:, labels], labels, 10)
        held += sum(one.low <= true <= one.high for one, true in zip(found, truth, strict=True))
    assert 0.93 <= held / 2000 <= 0.97, held / 2000


def test_a_class_of_one_image_or_without_a_mistake_is_never_certain():
    labels = np.array([0] * 20 + [1] * 20 + [2])
    right = np.ones((3, 41), bool)
    right[0, :5] = right[1, :9] = False
    for one in stats.class_accuracies(right, labels, 3):
        assert 0 <= one.low < one.mean <= one.high <= 1
    alone = stats.class_accuracies(right[:1], labels, 3)
    assert [one.low for one in alone] == [stats.wilson(15, 20)[0], stats.wilson(20, 20)[0], stats.wilson(1, 1)[0]]


def test_wilsons_interval_covers_what_it_claims():
    rng = np.random.default_rng(4)
    for chance in (0.6, 0.8, 0.95):
        held = 0
        for successes in rng.binomial(1000, chance, 2000):
            low, high = stats.wilson(int(successes), 1000)
            held += low <= chance <= high
        assert 0.93 <= held / 2000 <= 0.97, (chance, held / 2000)


def test_an_interval_stays_finite_where_seeds_agree_by_chance():
    rng = np.random.default_rng(5)
    halves = [stats.crossed_mean(rng.normal(0, 1, (2, 300)))[1] for _ in range(300)]
    assert np.isfinite(halves).all() and np.median(halves) < 0.2 and max(halves) < 2


def test_the_chance_to_win_counts_pairs():
    assert stats.chance_to_win(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)
    assert stats.chance_to_win(np.array([1.0]), np.array([0.0])) == 0.0


def test_calibrated_predictions_have_no_error_and_boasts_have_theirs():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (60_000, 3))
    probability = np.exp(log_softmax(logits, axis=1))
    labels = (rng.random((60_000, 1)) > probability.cumsum(1)).sum(1)
    assert stats.reliability(logits, labels).error < 0.01
    assert stats.temperature(logits, labels) == pytest.approx(1, abs=0.02)
    assert stats.reliability(3 * logits, labels).error > 0.1
    assert stats.temperature(3 * logits, labels) == pytest.approx(3, abs=0.06)


def test_calibration_error_is_that_of_a_loop_over_bins():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 1, (500, 4)), rng.integers(0, 4, 500)
    probability = np.exp(log_softmax(logits, axis=1))
    confidence, predicted = probability.max(1), probability.argmax(1)
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            error += abs((predicted == labels)[inside].mean() - confidence[inside].mean()) * inside.mean()
    found = stats.reliability(logits, labels)
    assert found.error == pytest.approx(error) and found.count.sum() == 500
