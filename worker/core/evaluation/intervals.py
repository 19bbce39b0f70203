"""Intervals of means over prompts, by Student's t.

A percentile bootstrap over eight subjects is too narrow; t over prompts is not. Several candidates
are compared on the same prompts, so what counts is the difference for each prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
FEWEST = 6
"""Prompts below which no interval is given."""

Values = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the limits of its interval; the limits are None under six prompts."""

    mean: float
    low: float | None = None
    high: float | None = None


def mean_interval(values: Values, *, comparisons: int = 1) -> Interval:
    """The mean of one value for each prompt.

    `comparisons`: how many such intervals are to hold together (Bonferroni). To compare all with
    the best of n candidates, n - 1 are enough (Hsu 1981, Annals of Statistics 9, 1026).
    """
    count, mean = len(values), float(np.mean(values))
    if count < FEWEST:
        return Interval(mean)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = error * t_quantile(1 - (1 - CONFIDENCE) / max(1, comparisons), count - 1)
    return Interval(mean, mean - half, mean + half)


def is_above(one: Values, other: Values, *, comparisons: int = 1) -> bool:
    """True if the mean of one is above that of the other by more than chance explains."""
    low = mean_interval(one - other, comparisons=comparisons).low
    return low is not None and low > 0


def t_quantile(share: float, freedom: int) -> float:
    """The t that |T| stays below with this probability, at `freedom` degrees of freedom.

    By bisection of the closed form for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_below(middle, freedom) < share else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _share_below(angle: float, freedom: int) -> float:
    """P(|T| < t) for t = √freedom · tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
