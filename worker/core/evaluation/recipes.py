"""Which configuration of a training is better, beyond what another training seed changes.

Each configuration is trained with the same seeds and measured on the same prompts. Style scores of
runs are an additive table of configurations and seeds; what is left of a score without both is
the spread of training seeds, pooled over the configurations (the error of a two-way layout with one
observation per cell; Scheffé 1959, The Analysis of Variance, section 4.2). The best one wins if it
is above each other one by more than this spread explains (Hsu 1981, Annals of Statistics 9, 1026).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.core.evaluation.intervals import CONFIDENCE, t_quantile

SEEN = 0.05
"""A difference in style that eyes hardly see: what more seeds are asked to find."""

FOUND = 0.8
"""The probability with which so many seeds find such a difference."""

MOST_SEEDS = 64


@dataclass(frozen=True)
class Recipe:
    """A configuration with its mean style over the prompts by training seed."""

    name: str
    styles: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(list(self.styles.values())))


@dataclass(frozen=True)
class Comparison:
    """Configurations, the best first.

    `spread`: the standard deviation that another training seed brings; `half`: half of the interval
    of 95 % of each mean; `least`: the difference from which on two means are told apart. `equal`:
    the best one and those that cannot be told from it.
    """

    order: tuple[Recipe, ...]
    spread: float
    half: float
    least: float
    equal: tuple[str, ...]

    @property
    def gap(self) -> float:
        """The difference between the first two."""
        return self.order[0].mean - self.order[1].mean

    @property
    def winner(self) -> str | None:
        """The one that is above all others; None if there is none."""
        return self.order[0].name if len(self.equal) == 1 else None

    def more_seeds(self, difference: float = SEEN) -> int:
        """How many more seeds of those that are equal would find a difference; 0: none is needed.

        Found in `FOUND` of such sweeps.
        """
        seeds = len(self.order[0].styles)
        many = max(2, len(self.equal))
        for count in range(seeds, MOST_SEEDS):
            freedom = (many - 1) * (count - 1)
            quantiles = t_quantile(_share(many - 1), freedom) + t_quantile(2 * FOUND - 1, freedom)
            if quantiles * self.spread * math.sqrt(2 / count) <= difference:
                return count - seeds
        return MOST_SEEDS - seeds


def compare(
    recipes: Sequence[Recipe], early: Sequence[Recipe] = (), *, looks: int = 1
) -> Comparison:
    """Compare at least two configurations with equal seeds, at least two.

    `early`: others that ended earlier, with the same rules; they only tell the spread. `looks`: how
    often this is asked, while seeds are added.
    """
    groups = [group for group in (recipes, early) if len(group) > 1]
    squares, freedom = map(sum, zip(*map(_left_over, groups), strict=True))
    seeds, others = len(recipes[0].styles), len(recipes) - 1
    spread = math.sqrt(squares / freedom)
    error = spread * math.sqrt(2 / seeds)
    order = sorted(recipes, key=lambda one: one.mean, reverse=True)
    least = error * t_quantile(_share(others * looks), freedom)
    best = order[0].mean
    equal = [order[0], *(one for one in order[1:] if best - one.mean <= least)]
    half = error / math.sqrt(2) * t_quantile(CONFIDENCE, freedom)
    names = tuple(one.name for one in equal)
    return Comparison(tuple(order), spread, half, least, names)


def better_half(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The half that goes on, at least two, the best first."""
    order = sorted(recipes, key=lambda one: one.mean, reverse=True)
    return order[: max(2, math.ceil(len(order) / 2))]


def _share(comparisons: int) -> float:
    return 1 - (1 - CONFIDENCE) / comparisons


def _left_over(recipes: Sequence[Recipe]) -> tuple[float, int]:
    """The squares of the scores without their configuration and seed, and their freedom."""
    seeds = list(recipes[0].styles)
    table = np.array([[one.styles[seed] for seed in seeds] for one in recipes])
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float(np.sum(rest**2)), (len(recipes) - 1) * (len(seeds) - 1)
