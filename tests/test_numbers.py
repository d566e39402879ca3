import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_lib.evidence.stats import Difference, Estimate
from report_lib.page import numbers


@pytest.mark.parametrize(
    ("uncertainty", "expected"),
    # The Particle Data Group's own examples are 0.119 (two digits) and 0.367 (one).
    [(0.119, 2), (0.367, 1), (0.0354, 3), (0.0356, 2), (3.4, 1), (3.6, 0), (12, 0), (355, 0), (None, 2), (0.0, 2)],
)
def test_decimals_follow_the_uncertainty(uncertainty, expected):
    assert numbers.decimals(uncertainty) == expected


@given(st.floats(1e-9, 1e9))
def test_the_last_digit_is_neither_noise_nor_a_loss(uncertainty):
    step = 10.0 ** -numbers.decimals(uncertainty)
    assert step <= max(1.0, uncertainty * 1.0001)
    assert step >= min(1.0, uncertainty / 35.6)


def test_a_column_has_the_decimals_of_its_least_uncertainty():
    assert numbers.decimals(5.0, 0.4, None, 0.0) == numbers.decimals(0.4) == 1
    assert numbers.decimals() == 2


def test_minus_signs_are_as_wide_as_plusses_and_none_stands_before_zero():
    assert numbers.fixed(-1.234, 1) == "\N{MINUS SIGN}1.2" and numbers.fixed(-0.001, 2) == "0.00"
    assert numbers.signed(1.0, 1) == "+1.0" and numbers.signed(-2.0, 0) == "\N{MINUS SIGN}2"
    assert numbers.signed(0.0) == "0.00" and numbers.fixed(12345.6, 0) == "12,346"


def test_one_number_rounds_the_same_by_whatever_way_it_came():
    right = np.array([[True] * 6418 + [False] * 3582, [True] * 6512 + [False] * 3488])
    assert numbers.percent(right.mean()).startswith(numbers.spread([0.6418, 0.6512], 100, 1)[:4])


def test_intervals_and_spreads_round_together():
    assert numbers.reach(-0.0123, 0.0456) == ("\N{MINUS SIGN}1.2 to +4.6", 1)
    assert numbers.spread([0.5, 0.6], 100, 1) == "55.0 ± 7.1" and numbers.spread([0.5], 100, 0) == "50"


@pytest.mark.parametrize("half", [0.0001, 0.004, 0.05])
def test_an_accuracy_looks_the_same_whatever_its_interval(half):
    estimate = Estimate(0.5968, None, 1, 0.5968 - half, 0.5968 + half, "")
    assert numbers.rate(estimate) == numbers.percent(0.5968) == "59.7\N{NO-BREAK SPACE}%"
    assert numbers.interval(estimate).endswith("\N{NO-BREAK SPACE}%") and numbers.interval(estimate).count(".") == 2
    assert numbers.points(Difference(0.0304, 0.03 - half, 0.03 + half, "")).startswith("+3.0 points")


def test_a_spread_that_rounds_to_zero_is_no_certainty():
    assert numbers.spread([1.1371, 1.1389, 1.1402], 1, 2) == "1.14 ± <0.01"
    assert numbers.spread([1.14, 1.14], 1, 2) == "1.14", "one measurement, or none that differs"
    assert numbers.signed(0.0004, 1) == "0.0" and numbers.signed(-0.0004, 1) == "0.0"


def test_no_softmax_is_quite_sure():
    shown = [numbers.confidence(p).replace(numbers.NBSP, " ") for p in (0.5, 0.99, 0.996, 1.0)]
    assert shown == ["50 %", "99 %", "> 99 %", "> 99 %"] and "> 99.9" in numbers.confidence(0.99999, 1)
