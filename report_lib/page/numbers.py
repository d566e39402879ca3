"""Numbers -> the text that tables and sentences print.

Accuracies in percent and their differences in points have one decimal wherever they stand, so that one number looks
the same in every place. The rounding of losses follows their uncertainty.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from report_lib.evidence.stats import Difference, Estimate

NBSP = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line
MINUS = "\N{MINUS SIGN}"  # as wide as a plus
DIGITS = 1  # decimals of accuracies in percent, and of points


def decimals(*uncertainties: float | None) -> int:
    """Decimals worth printing beside the least of some uncertainties; 2 where none of them is known and above zero.

    Two digits of an uncertainty that starts with 10 to 35, one of any other: the rule of the Particle Data Group
    (Review of Particle Physics, introduction, section 5.3).
    """
    known = [value for value in uncertainties if value and math.isfinite(value)]
    if not known:
        return 2
    exponent = math.floor(math.log10(min(known)))
    two = min(known) / 10.0**exponent < 3.55
    return max(0, two - exponent)


def fixed(value: float, digits: int) -> str:
    """With a proper minus, and none before a zero."""
    text = f"{round(value, 9):,.{digits}f}"  # so that one number rounds the same, by whatever sums it came about
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.removeprefix("-")


def signed(value: float, digits: int = 2) -> str:
    """With its sign, also a plus; none before a zero."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and float(text.replace(",", "")) else text


def percent(fraction: float, digits: int = DIGITS) -> str:
    return f"{fixed(100 * fraction, digits)}{NBSP}%"


def two_figures(fraction: float) -> str:
    """A share in percent, to two significant figures, for shares of very different sizes."""
    return f"{np.format_float_positional(100 * fraction, 2, fractional=False, trim='-')}{NBSP}%"


def confidence(probability: float, digits: int = 0) -> str:
    """A softmax probability in percent, never a whole 100 %, which none is."""
    most = 1 - 10.0 ** -(digits + 2)
    return f"> {percent(most, digits)}" if probability > most else percent(probability, digits)


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a fraction, in percent."""
    return f"{fixed(100 * estimate.low, DIGITS)} to {percent(estimate.high)}"


def rate(estimate: Estimate) -> str:
    """A fraction in percent."""
    return percent(estimate.mean)


def reach(low: float, high: float) -> tuple[str, int]:
    """(an interval of differences of fractions, in points with their signs, the decimals that it takes); no unit."""
    digits = DIGITS
    for bound in (low, high):  # a bound beside zero is not rounded to it: on which side it lies is what counts
        if bound:
            digits = max(digits, min(DIGITS + 2, math.ceil(-math.log10(abs(100 * bound) * 2))))
    return f"{signed(100 * low, digits)} to {signed(100 * high, digits)}", digits


def points(difference: Difference) -> str:
    """A difference of fractions in percentage points, with its 95 % interval."""
    between, digits = reach(difference.low, difference.high)
    return f"{signed(100 * difference.mean, digits)} points, {between}"


def spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Mean, with the standard deviation between seeds where there are several; one that rounds to zero is a bound."""
    mean = fixed(scale * float(np.mean(values)), digits)
    wide = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{mean} ± {at_least(scale * wide, digits)}" if wide else mean


def at_least(value: float, digits: int) -> str:
    """A deviation; one that rounds to zero as a bound, since it is none."""
    text = f"{value:.{digits}f}"
    return text if float(text) else f"<{10.0**-digits:.{digits}f}"


def by_seed(low: str, high: str) -> str:
    """The range of seeds in brackets; nothing where all are the same."""
    return f" ({low} to {high} by seed)" if low != high else ""


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.3g}{NBSP}s"
    return f"{value:,.0f}{NBSP}s" if value < 3600 else f"{value / 3600:.1f}{NBSP}h"


def in_seconds(values: Sequence[float]) -> str:
    """Mean of times, and their standard deviation where there are several, without a unit, for a column whose head has
    it; never a bare zero of what took some time."""
    mean = float(np.mean(values))
    return spread(values, 1, 0 if mean >= 100 else 1 if mean >= 10 else 2)


def factor(ratio: float) -> str:
    """How many times as much, without "times"."""
    return fixed(ratio, 0 if ratio >= 10 else 1)


def capital(sentence: str) -> str:
    """With a capital at its start; the rest as it is, such as the letters of LoRA."""
    return sentence[:1].upper() + sentence[1:]


def listed(words: Iterable[str], last: str = "and") -> str:
    """The different ones of some words, as a sentence lists them: a, b and c."""
    *others, final = dict.fromkeys(words)
    return f"{', '.join(others)} {last} {final}" if others else final


def methods(estimates: Iterable[Estimate | Difference]) -> str:
    """How some intervals were made, as a caption says it."""
    return listed((estimate.method for estimate in estimates), "or")


def p_value(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
