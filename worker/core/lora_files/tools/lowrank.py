"""The best weight change of a smaller rank, and how much of the exact one it keeps.

Eckart and Young (1936): of all matrices of rank r, the one built from the r largest singular values
is nearest in the Frobenius norm. The energy kept is the share of the squared singular values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from worker.core.lora_files.canonical import Component, LoraModule

NOTHING = 1e-12  # of the largest singular value; what is smaller is rounding of float64


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A matrix (out, in) as `left` (out, k) · diag(`values`) · `right` (k, in), in float64.

    `values` fall; `energy` is the squared Frobenius norm of the whole matrix. There may be more
    values than directions: then only the first ones were asked for.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """How many directions carry something."""
        if not len(self.values) or float(self.values[0]) == 0:
            return 0
        return int((self.values > NOTHING * self.values[0]).sum())

    def kept(self, rank: int) -> float:
        """The share of the energy in the first `rank` directions, 0 to 1; 1 for an empty matrix."""
        if self.energy == 0:
            return 1.0
        return min(1.0, float(self.values[:rank].square().sum()) / self.energy)

    def rank_for(self, energy: float) -> int:
        """The smallest rank (at least 1) that keeps this share of the energy."""
        if self.energy == 0:
            return 1
        shares = self.values.square().cumsum(0) / self.energy
        enough = (shares >= energy - 1e-12).nonzero()
        return int(enough[0]) + 1 if len(enough) else max(1, len(self.values))

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """(up, down) in fp32, (out, rank) and (rank, in); zeros where no direction is left.

        Both halves get the root of each value, so that neither is small in fp16.
        """
        count = min(rank, self.rank, len(self.right))
        roots = self.values[:count].sqrt()
        up = torch.zeros(self.left.shape[0], rank)
        down = torch.zeros(rank, self.right.shape[1])
        up[:, :count] = (self.left[:, :count] * roots).float()
        down[:count] = (roots[:, None] * self.right[:count]).float()
        return up, down


@contextmanager
def one_thread() -> Iterator[None]:
    """Thin factors are fastest on one thread: waking others takes longer than the work itself.

    Measured on 2 busy cores, a spectrum of (1280, 64) @ (64, 1280): 6 ms on one thread, 476 ms on
    two.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def of_product(up: Tensor, down: Tensor) -> Spectrum:
    """The spectrum of `up` (out, R) @ `down` (R, in), by QR of the thin factors.

    The product is never formed: up = Q₁R₁ and downᵀ = Q₂R₂, so only R₁R₂ᵀ (R, R) is decomposed.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    inner, values, outer = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return Spectrum(left @ inner, values, outer @ right.T, float(values.square().sum()))


def of_matrix(matrix: Tensor, *, directions: int | None = None) -> Spectrum:
    """The spectrum of a full matrix (out, in), by the eigenvectors of its smaller Gram matrix.

    In float64, where squaring the values costs nothing that fp32 weights could show. `directions`:
    how many are needed; the values are all there in any case.
    """
    exact = matrix.double()
    wide = exact.shape[0] <= exact.shape[1]
    if not wide:
        exact = exact.T
    squares, vectors = torch.linalg.eigh(exact @ exact.T)
    values = squares.clamp(min=0).flip(0).sqrt()
    left = vectors.flip(1)[:, :directions]
    floor = max(float(values[0]) * NOTHING, torch.finfo(torch.float64).tiny)
    right = (left.T @ exact) / values[:directions].clamp(min=floor)[:, None]
    energy = float(exact.square().sum())
    if wide:
        return Spectrum(left, values, right, energy)
    return Spectrum(right.T, values, left.T, energy)


@dataclass(frozen=True)
class Kept:
    """What a module kept: its rank, the share of the energy, and its exact squared norm."""

    key: str
    rank: int
    share: float
    energy: float


@dataclass(frozen=True)
class Report:
    """How near a result is to the exact weight change."""

    modules: tuple[Kept, ...]

    @property
    def least(self) -> float:
        """The smallest share of the energy that a module kept."""
        return min((module.share for module in self.modules), default=1.0)

    @property
    def mean(self) -> float:
        """The mean share over the modules, each counting the same."""
        return sum(m.share for m in self.modules) / max(1, len(self.modules))

    @property
    def relative_error(self) -> float:
        """Norm of what was lost over the norm of the exact change, over all modules together."""
        total = sum(module.energy for module in self.modules)
        lost = sum((1 - module.share) * module.energy for module in self.modules)
        return float((lost / total) ** 0.5) if total > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """The figures people are shown, as JSON."""
        ranks = [module.rank for module in self.modules]
        return {
            "modules": len(self.modules),
            "rank_min": min(ranks, default=0),
            "rank_max": max(ranks, default=0),
            "energy_min": round(self.least, 6),
            "energy_mean": round(self.mean, 6),
            "relative_error": round(self.relative_error, 6),
        }


def lora(
    component: Component, path: str, up: Tensor, down: Tensor, shape: Sequence[int]
) -> LoraModule:
    """A module of strength 1 for a weight of `shape` from `up` (out, rank) and `down` (rank, in).

    Alpha is the rank: then every program reads it the same, with or without the alpha.
    """
    rank = down.shape[0]
    assert tuple(up.shape) == (shape[0], rank)
    assert down.shape[1] == prod(shape[1:])
    return LoraModule(
        component,
        path,
        down.reshape(rank, *shape[1:]).contiguous(),
        up.reshape(shape[0], rank, *[1] * (len(shape) - 2)).contiguous(),
        float(rank),
    )
