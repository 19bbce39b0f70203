"""The rule that names the winner of a sweep, tried on simulated trainings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from worker.core.evaluation.recipes import Comparison, Recipe, better_half, compare

TIMES = 1_000
SPREAD = 0.04


def recipes(table: Sequence[Sequence[float]]) -> list[Recipe]:
    return [Recipe(f"c{row}", dict(enumerate(values))) for row, values in enumerate(table)]


def simulate(
    random: np.random.Generator, count: int, seeds: int, better: float = 0, *, halves: bool = False
) -> Comparison:
    """A sweep of configurations that are equal but the first, which is `better`."""
    noise = random.normal(0, SPREAD, (count, seeds)) + random.normal(0, 0.1, seeds)
    noise[0] += better
    if not halves:
        return compare(recipes(noise))
    half = recipes(0.5 * noise + random.normal(0, SPREAD * 0.8, (count, seeds)))
    kept = {one.name for one in better_half(half)}
    full = [one for one in recipes(noise) if one.name in kept]
    return compare(full, [one for one in half if one.name not in kept])


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("count", "seeds"), [(2, 3), (3, 2), (6, 3), (12, 5)])
def test_equal_configurations_have_no_winner(count: int, seeds: int, halves: bool) -> None:
    random = np.random.default_rng(3)
    named = [simulate(random, count, seeds, halves=halves).winner for _ in range(TIMES)]
    assert sum(name is not None for name in named) / TIMES <= 0.064  # 5 % and the noise of so many


def test_a_clear_difference_names_its_winner() -> None:
    random = np.random.default_rng(4)
    named = [simulate(random, 6, 3, 0.2).winner for _ in range(200)]
    assert named.count("c0") > 180


def test_the_seeds_that_are_asked_for_find_the_difference() -> None:
    random = np.random.default_rng(5)
    first = compare(recipes([[0.70, 0.78, 0.74], [0.72, 0.71, 0.77]]))
    assert first.winner is None
    assert first.equal == ("c0", "c1")
    more = first.more_seeds(0.05)
    assert more > 3
    scale = first.spread / SPREAD
    found = [simulate(random, 2, 3 + more, 0.05 / scale).winner for _ in range(500)]
    assert 0.74 < found.count("c0") / 500 < 0.9
    assert first.more_seeds(1.0) == 0


def test_a_seed_that_moves_all_configurations_is_no_spread() -> None:
    found = compare(recipes([[0.9, 0.4, 0.7], [0.8, 0.3, 0.6], [0.1, -0.4, -0.1]]))
    assert found.winner == "c0"
    assert found.gap == pytest.approx(0.1)
    assert found.spread == pytest.approx(0)


def test_asking_again_asks_for_more() -> None:
    table = recipes([[0.70, 0.78, 0.74], [0.72, 0.71, 0.77]])
    assert compare(table, looks=2).least > compare(table).least


@pytest.mark.parametrize(("count", "kept"), [(2, 2), (3, 2), (5, 3), (6, 3)])
def test_the_better_half_goes_on(count: int, kept: int) -> None:
    order = better_half(recipes([[float(row)] * 2 for row in range(count)]))
    assert [one.name for one in order] == [f"c{row}" for row in range(count - kept, count)][::-1]
