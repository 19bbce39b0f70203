from __future__ import annotations

import numpy as np
import pytest

from worker.core.evaluation.intervals import is_above, mean_interval, t_quantile

TABLE = [
    (0.95, 1, 12.706),
    (0.95, 2, 4.303),
    (0.95, 7, 2.365),
    (0.95, 31, 2.040),
    (0.99, 10, 3.169),
]


@pytest.mark.parametrize(("share", "freedom", "expected"), TABLE)
def test_quantiles_are_those_of_published_tables(
    share: float, freedom: int, expected: float
) -> None:
    assert t_quantile(share, freedom) == pytest.approx(expected, abs=6e-4)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    found = [mean_interval(rng.normal(0.3, 1, 8)) for _ in range(2_000)]
    hits = [one.low <= 0.3 <= one.high for one in found if one.low is not None and one.high]
    assert len(hits) == 2_000
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_intervals_that_hold_together_are_wider_and_few_prompts_have_none() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.4, 0.2, 0.3])
    alone, together = mean_interval(values), mean_interval(values, comparisons=5)
    assert alone.low is not None
    assert together.low is not None
    assert together.low < alone.low
    assert is_above(values, -values)
    few = mean_interval(values[:5])
    assert (few.mean, few.low) == (pytest.approx(0.24), None)
    assert not is_above(values[:5], -values[:5])
