"""Distance between two low-rank weight changes, without computing the full matrices.

For W = s U D and V = t P Q the Frobenius product <W, V> is s t sum((U^T P) * (D Q^T)): matrices of
rank × rank, in fp64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

ONE_THREAD_PARAMETERS = 200_000_000
"""Adapters up to this size are compared on one thread: threads only wait in small products."""


@dataclass(frozen=True)
class ChangeSimilarity:
    """The products <f, f>, <f, e>, <e, e> of a found change f at scale 1 and the expected one e."""

    found: float
    both: float
    expected: float

    def error(self, scale: float) -> float:
        """|scale f - e| / |e|; 0 if both are zero, infinite if only e is."""
        distance = scale * scale * self.found - 2 * scale * self.both + self.expected
        # the products have the rounding error of fp64: a smaller difference counts as none
        floor = 1e-14 * (scale * scale * self.found + self.expected)
        if distance <= floor:
            return 0.0
        return (distance / self.expected) ** 0.5 if self.expected > 0 else float("inf")

    def strength(self, scale: float) -> float:
        """The strength of scale f in the direction of e; 1 is right."""
        return scale * self.both / self.expected if self.expected > 0 else 1.0


def compare_changes(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], scale: float
) -> ChangeSimilarity:
    """Similarity of (down, up) as found and as expected at `scale`, of the same weight shape."""
    f, e = _fp64_matrices(found), _fp64_matrices(expected)
    return ChangeSimilarity(
        _frobenius_product(f, f),
        scale * _frobenius_product(f, e),
        scale * scale * _frobenius_product(e, e),
    )


def _fp64_matrices(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    down, up = pair
    return down.flatten(1).to(torch.float64), up.flatten(1).to(torch.float64)


def _frobenius_product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    (down, up), (other_down, other_up) = one, other
    return float(((up.T @ other_up) * (down @ other_down.T)).sum())


@contextmanager
def limit_threads(parameters: int) -> Iterator[None]:
    """Limit torch to the number of threads that is fastest for an adapter of this size."""
    before = torch.get_num_threads()
    if parameters <= ONE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
