"""Weight changes of other forms as a LoRA's two matrices: exactly, or with a measured loss.

W (out, in) is a layer's weight, a convolution's kernel flattened into `in`. A pair is (down
(R, in), up (out, R)) with up @ down the change at strength 1. Forms and shapes are those of
KohakuBlueleaf/LyCORIS (arXiv 2309.14859), whose LoHa is FedPara's product (arXiv 2108.06098):

    LoRA  dW = up @ down
    LoHa  dW = (w1_a @ w1_b) * (w2_a @ w2_b)
    LoKr  dW = kron(w1, w2), each whole or a product of two
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]

OVERSAMPLING = 16  # directions a randomised SVD looks at beyond those it keeps
POWER_ITERATIONS = 4
ROUNDING = (
    5e-6  # share of a change in fp32 that is noise of its arithmetic; fp16's is 60 times that
)


def as_lora(factors: Mapping[str, Tensor]) -> Pair:
    """(down (R, in), up (out, R)) with up @ down = dW at strength 1: exact, not an approximation.

    R is the least that the form allows: rank for LoRA; rank² for LoHa; min(l, m) times rank for
    LoKr; never more than out or in.
    """
    match factors:
        case {"down": down, "up": up}:
            return down.flatten(1), up.flatten(1)
        case {"w1_a": w1_a, "w1_b": w1_b, "w2_a": w2_a, "w2_b": w2_b}:
            return _hadamard(w1_a, w1_b, w2_a, w2_b)
    return kronecker(factors)


def kronecker(factors: Mapping[str, Tensor]) -> Pair:
    """The exact LoRA of a LoKr, whichever of its factors are whole."""
    first, second = kronecker_pairs(factors)
    # (a b) kron (c d) = (a kron c) (b kron d)
    return torch.kron(first[0], second[0]), torch.kron(first[1], second[1])


def kronecker_pairs(factors: Mapping[str, Tensor]) -> tuple[Pair, Pair]:
    """The two factors of a LoKr as pairs, each of the least rank its form allows."""
    return _factor(factors, "w1"), _factor(factors, "w2")


def kron_within(first: Pair, second: Pair, rank: int) -> tuple[Tensor, Tensor, float]:
    """(down, up, lost) of the best LoRA of `rank` for a Kronecker product, by its factors' SVDs.

    The singular values of a Kronecker product are all products of its factors' own; `lost` is the
    squared Frobenius norm of those left out. The product itself is never made.
    """
    u1, s1, v1 = torch.linalg.svd(first[1] @ first[0], full_matrices=False)
    u2, s2, v2 = torch.linalg.svd(second[1] @ second[0], full_matrices=False)
    values = torch.outer(s1, s2).flatten()
    kept = torch.argsort(values, descending=True, stable=True)[:rank]
    i, j = kept // len(s2), kept % len(s2)
    roots = values[kept].sqrt()
    up = (u1[:, None, i] * u2[None, :, j]).flatten(0, 1) * roots
    down = (v1[i, :, None] * v2[j, None, :]).flatten(1) * roots[:, None]
    left = values.double().square().sum() - values[kept].double().square().sum()
    return down, up, max(0.0, float(left))


def within_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """(down, up, lost) of the best LoRA of at most `rank` for a whole change (out, in).

    A change of lower rank, but for rounding, gets a LoRA of that rank: the rest would be noise.
    `lost` is the squared Frobenius norm of the difference, measured on the result. Large matrices
    get a randomised SVD with power iterations and a fixed seed (Halko, Martinsson and Tropp 2011,
    arXiv 0909.4061, algorithm 4.4); the same change gives the same LoRA.
    """
    rank = min(rank, *change.shape)
    wide = rank + OVERSAMPLING
    if 3 * wide >= min(change.shape):
        u, s, v = torch.linalg.svd(change, full_matrices=False)
    else:
        basis = _range(change, wide)
        inner, s, v = torch.linalg.svd(basis.T @ change, full_matrices=False)
        u = basis @ inner
    rank = min(rank, _least_rank(s))
    roots = s[:rank].clamp(min=0).sqrt()
    down, up = v[:rank] * roots[:, None], u[:, :rank] * roots
    return down, up, squared_norm(change - up @ down)


def _least_rank(values: Tensor) -> int:
    """How many of the falling singular values are more than rounding together; at least 1."""
    squares = values.double().square()
    beyond = squares.flip(0).cumsum(0).flip(0)  # of a value and all below it
    return max(1, int((beyond > ROUNDING**2 * squares.sum()).sum()))


def fold_mid(down: Tensor, mid: Tensor) -> Tensor:
    """The down (R, in, kh, kw) of a LoCon whose kernel lies in a third matrix.

    `down` is (R, in) or (R, in, 1, 1), `mid` (R, R, kh, kw): a contraction, of the same rank.
    """
    return torch.einsum("rskl,si->rikl", mid, down.flatten(1))


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Pair:
    """LyCORIS' core tensor (r, r, kh, kw) between a (r, out) and b (r, in), as (a, b) without it.

    The result is (out, r) and (r, in * kh * kw), whose product is the flattened kernel.
    """
    return a.T.contiguous(), torch.einsum("ijkl,jn->inkl", core, b).flatten(1).contiguous()


def balanced(down: Tensor, up: Tensor) -> Pair:
    """The same product with the halves of each direction equally large, for fp16's sake.

    A product of small factors may lie below fp16's least number, 6e-8, in one half while the
    other has room. Only powers of two are moved, so that no digit changes.
    """
    ratio = up.abs().amax(0) / down.abs().amax(1)
    shift = (torch.log2(ratio) / 2).round()
    shift = torch.where(shift.isfinite(), shift, 0.0)
    return torch.ldexp(down, shift[:, None]), torch.ldexp(up, -shift)


def squared_norm(matrix: Tensor) -> float:
    """The squared Frobenius norm."""
    return float(matrix.double().square().sum())


def squared_norm_of_product(down: Tensor, up: Tensor) -> float:
    """The squared Frobenius norm of up @ down, which is not made: R² (out + in) operations."""
    a, b = down.flatten(1).double(), up.flatten(1).double()
    return max(0.0, float(((a @ a.T) * (b.T @ b)).sum()))


def _hadamard(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> Pair:
    """(sum_r a_r b_r) * (sum_s c_s d_s) = sum_rs (a_r * c_s) (b_r * d_s), a Khatri-Rao product."""
    if w1_a.shape[1] * w2_a.shape[1] > min(w1_a.shape[0], w1_b.shape[1]):
        return _whole((w1_a @ w1_b) * (w2_a @ w2_b))
    down = (w1_b[:, None] * w2_b[None]).flatten(0, 1)
    up = (w1_a[:, :, None] * w2_a[:, None]).flatten(1)
    return down, up


def _factor(factors: Mapping[str, Tensor], name: str) -> Pair:
    if name in factors:
        return _whole(factors[name].flatten(1).contiguous())
    return _least(factors[f"{name}_b"], factors[f"{name}_a"])


def _least(down: Tensor, up: Tensor) -> Pair:
    """The pair itself, or its product beside an identity if that has the lower rank."""
    return _whole(up @ down) if down.shape[0] > min(up.shape[0], down.shape[1]) else (down, up)


def _whole(weight: Tensor) -> Pair:
    """A full matrix (out, in) as a pair: itself beside the smaller identity."""
    identity = torch.eye(min(weight.shape), dtype=weight.dtype, device=weight.device)
    return (weight, identity) if weight.shape[0] <= weight.shape[1] else (identity, weight)


def _range(change: Tensor, width: int) -> Tensor:
    """An orthonormal basis (out, width) of nearly all that `change` maps to."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(change.shape[1], width, generator=generator)
    basis: Tensor = torch.linalg.qr(change @ start.to(change))[0]
    for _ in range(POWER_ITERATIONS):
        back = torch.linalg.qr(change.T @ basis)[0]
        basis = torch.linalg.qr(change @ back)[0]
    return basis
