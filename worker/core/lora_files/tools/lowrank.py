"""The best approximation of a weight change with a lower rank, and how much it keeps.

Eckart and Young (1936): of all matrices of rank r, the one built from the r largest singular values
is closest in the Frobenius norm. The energy kept is their share of all squared singular values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraModule

NEGLIGIBLE = 1e-12  # of the largest singular value; smaller values are rounding of float64


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A matrix (out, in) as `left` (out, k) · diag(`values`) · `right` (k, in), in float64.

    `values` are in descending order; `energy` is the squared Frobenius norm of the whole matrix.
    `left` and `right` may have fewer directions than there are values.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """The number of directions that are not negligible."""
        if not len(self.values) or float(self.values[0]) == 0:
            return 0
        return int((self.values > NEGLIGIBLE * self.values[0]).sum())

    def energy_share(self, rank: int) -> float:
        """The share of the energy in the first `rank` directions, 0 to 1; 1 for a zero matrix."""
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
        """(up, down) in fp32, (out, rank) and (rank, in); zeros beyond the last direction.

        Both factors get the root of each value, so that neither is small in fp16.
        """
        count = min(rank, self.rank, len(self.right))
        roots = self.values[:count].sqrt()
        up = torch.zeros(self.left.shape[0], rank)
        down = torch.zeros(rank, self.right.shape[1])
        up[:, :count] = (self.left[:, :count] * roots).float()
        down[:count] = (roots[:, None] * self.right[:count]).float()
        return up, down


def spectrum_of_product(up: Tensor, down: Tensor) -> Spectrum:
    """The spectrum of `up` (out, R) @ `down` (R, in), by QR of the thin factors.

    The product is never computed: up = Q₁R₁ and downᵀ = Q₂R₂, so only R₁R₂ᵀ (R, R) is decomposed.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    inner, values, outer = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return Spectrum(left @ inner, values, outer @ right.T, float(values.square().sum()))


def spectrum_of_matrix(matrix: Tensor, *, directions: int | None = None) -> Spectrum:
    """The spectrum of a full matrix (out, in), by the eigenvectors of its smaller Gram matrix.

    Computed in float64, so that squaring loses no precision of fp32 weights. `directions`: the
    number of directions to return; all values are returned in any case.
    """
    exact = matrix.double()
    wide = exact.shape[0] <= exact.shape[1]
    if not wide:
        exact = exact.T
    squares, vectors = torch.linalg.eigh(exact @ exact.T)
    values = squares.clamp(min=0).flip(0).sqrt()
    left = vectors.flip(1)[:, :directions]
    floor = max(float(values[0]) * NEGLIGIBLE, torch.finfo(torch.float64).tiny)
    right = (left.T @ exact) / values[:directions].clamp(min=floor)[:, None]
    energy = float(exact.square().sum())
    if wide:
        return Spectrum(left, values, right, energy)
    return Spectrum(right.T, values, left.T, energy)


@dataclass(frozen=True)
class ModuleFidelity:
    """The fidelity of a module: its rank, the kept share of the energy, the exact squared norm."""

    key: str
    rank: int
    share: float
    energy: float


@dataclass(frozen=True)
class FidelityReport:
    """The closeness of a result to the exact weight change."""

    modules: tuple[ModuleFidelity, ...]

    @property
    def least(self) -> float:
        """The smallest share of the energy that a module keeps."""
        return min((module.share for module in self.modules), default=1.0)

    @property
    def mean(self) -> float:
        """The mean share over all modules, with equal weight."""
        return sum(m.share for m in self.modules) / max(1, len(self.modules))

    @property
    def relative_error(self) -> float:
        """Norm of the error divided by the norm of the exact change, over all modules together."""
        total = sum(module.energy for module in self.modules)
        lost = sum((1 - module.share) * module.energy for module in self.modules)
        return float((lost / total) ** 0.5) if total > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """The figures shown to users, as JSON."""
        ranks = [module.rank for module in self.modules]
        return {
            "modules": len(self.modules),
            "rank_min": min(ranks, default=0),
            "rank_max": max(ranks, default=0),
            "energy_min": round(self.least, 6),
            "energy_mean": round(self.mean, 6),
            "relative_error": round(self.relative_error, 6),
        }


def lowrank_module(
    component: Component, path: str, spectrum: Spectrum, rank: int, shape: Sequence[int]
) -> tuple[LoraModule, ModuleFidelity]:
    """The best module of `rank` for a change with this spectrum, and how close it is."""
    module = make_module(component, path, *spectrum.factors(rank), shape)
    share = spectrum.energy_share(rank)
    return module, ModuleFidelity(module.key, rank, share, spectrum.energy)


def make_module(
    component: Component, path: str, up: Tensor, down: Tensor, shape: Sequence[int]
) -> LoraModule:
    """A module of strength 1 for a weight of `shape` from `up` (out, rank) and `down` (rank, in).

    Alpha equals the rank, so that every program reads the same strength with or without alpha.
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
