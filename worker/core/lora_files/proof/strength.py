"""How far one low-rank change is from another, without making either of them full size.

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
"""Adapters up to this size are compared on one thread: many small products wait for each other."""


@dataclass(frozen=True)
class Likeness:
    """The products <f, f>, <f, w>, <w, w> of a found change f at scale 1 and the wanted one w."""

    found: float
    both: float
    wanted: float

    def error(self, scale: float) -> float:
        """|scale f - w| / |w|; 0 when both are zero, infinite when only w is."""
        distance = scale * scale * self.found - 2 * scale * self.both + self.wanted
        # the three products carry the rounding of fp64: what is below it is no difference
        floor = 1e-14 * (scale * scale * self.found + self.wanted)
        if distance <= floor:
            return 0.0
        return (distance / self.wanted) ** 0.5 if self.wanted > 0 else float("inf")

    def strength(self, scale: float) -> float:
        """How strong scale f is in the direction of w; 1 is right."""
        return scale * self.both / self.wanted if self.wanted > 0 else 1.0


def likeness(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], scale: float) -> Likeness:
    """Compare (down, up) as found with (down, up) at `scale` as wanted; the same weight shape."""
    f, w = _matrices(found), _matrices(wanted)
    return Likeness(_product(f, f), scale * _product(f, w), scale * scale * _product(w, w))


def _matrices(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    down, up = pair
    return down.flatten(1).to(torch.float64), up.flatten(1).to(torch.float64)


def _product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    (down, up), (other_down, other_up) = one, other
    return float(((up.T @ other_up) * (down @ other_down.T)).sum())


@contextmanager
def few_threads(parameters: int) -> Iterator[None]:
    """Threads that suit the comparison of an adapter with so many numbers."""
    before = torch.get_num_threads()
    if parameters <= ONE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
