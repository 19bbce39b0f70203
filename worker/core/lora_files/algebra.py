"""Conversion of other parametrizations to the two matrices of a LoRA, exact or with a known error.

W (out, in) is a layer's weight, with a convolution's kernel flattened into `in`. A pair is (down
(R, in), up (out, R)) with up @ down the change at strength 1. Parametrizations and shapes are
those of KohakuBlueleaf/LyCORIS (arXiv 2309.14859); LoHa is FedPara's product (arXiv 2108.06098):

    LoRA  dW = up @ down
    LoHa  dW = (w1_a @ w1_b) * (w2_a @ w2_b)
    LoKr  dW = kron(w1, w2), each a full matrix or a product of two
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]

OVERSAMPLING = 16  # extra directions of a randomized SVD beyond those it keeps
POWER_ITERATIONS = 4
FEW = 48  # directions that are tried first
SMALL = 96  # the shorter side of matrices whose SVD takes milliseconds
RESOLVED = 1e-5  # of the squared norm: a smaller omission is lost in the rounding of a Gram matrix
ROUNDING = 5e-6  # relative rounding noise of a change in fp32


@contextmanager
def one_thread(*, when: bool = True) -> Iterator[None]:
    """Run torch on one thread, the fastest for thin factors: waking others takes too long.

    Measured on 2 busy cores, a spectrum of (1280, 64) @ (64, 1280): 6 ms on one thread, 476 ms on
    two; reading an SDXL LoRA of rank 32: 2.6 s on one, 79 s on two.
    """
    threads = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def lora_pair(factors: Mapping[str, Tensor]) -> Pair:
    """(down (R, in), up (out, R)) with up @ down = dW at strength 1: exact, not an approximation.

    R is the lowest rank that is always exact: rank for LoRA; rank² for LoHa; min(l, m) times rank
    for LoKr; never more than out or in.
    """
    match factors:
        case {"down": down, "up": up}:
            return down.flatten(1), up.flatten(1)
        case {"w1_a": w1_a, "w1_b": w1_b, "w2_a": w2_a, "w2_b": w2_b}:
            return _hadamard_pair(w1_a, w1_b, w2_a, w2_b)
    return kronecker_pair(factors)


def kronecker_pair(factors: Mapping[str, Tensor]) -> Pair:
    """The exact LoRA of a LoKr, whose factors may be full matrices or products."""
    first, second = kronecker_factors(factors)
    # (a b) kron (c d) = (a kron c) (b kron d)
    return torch.kron(first[0], second[0]), torch.kron(first[1], second[1])


def kronecker_factors(factors: Mapping[str, Tensor]) -> tuple[Pair, Pair]:
    """The two factors of a LoKr as pairs, each of the lowest rank that is always exact."""
    return _factor_pair(factors, "w1"), _factor_pair(factors, "w2")


def truncate_kronecker(first: Pair, second: Pair, rank: int) -> tuple[Tensor, Tensor, float]:
    """(down, up, lost) of the best LoRA of `rank` for a Kronecker product, by its factors' SVDs.

    The singular values of a Kronecker product are all products of those of its factors; `lost` is
    the squared Frobenius norm of the omitted ones. The product itself is never computed.
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


def truncate_to_rank(
    change: Tensor, rank: int, rounding: float = ROUNDING
) -> tuple[Tensor, Tensor, float]:
    """(down, up, lost) of the best LoRA of at most `rank` for a full change (out, in).

    A change that has a lower rank apart from `rounding` (relative, of the numbers that it was
    stored in) gets a LoRA of that rank: the rest is noise. `lost` is the squared Frobenius norm of
    the error, measured on the result. The same change gives the same LoRA.
    """
    rank = min(rank, *change.shape)
    u, s, v = _leading_directions(change, rank, rounding)
    rank = min(rank, _significant_rank(s, rounding))
    roots = s[:rank].clamp(min=0).sqrt()
    down, up = v[:rank] * roots[:, None], u[:, :rank] * roots
    return down, up, squared_norm(change - up @ down)


def _leading_directions(
    change: Tensor, rank: int, rounding: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(u, s, v) with at least the `rank` largest singular values, or with all above rounding.

    Three ways, the fastest that is exact enough. A basis of few random directions (Halko,
    Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4) suffices for a low rank. The
    eigenvectors of the smaller Gram matrix in fp32 give the best approximation, if that omits more
    than fp32 squared can resolve, in a tenth of the time of an SVD. Else random directions again.
    """
    if min(change.shape) <= SMALL:
        return tuple(torch.linalg.svd(change, full_matrices=False))
    total = squared_norm(change)
    if rank > FEW:
        basis = _range_basis(change, FEW + OVERSAMPLING, iterations=1)
        inner = basis.T @ change
        if squared_norm(change - basis @ inner) <= rounding**2 * total:
            return _directions_in(basis, inner)
        u, squares = _gram_directions(change if change.shape[0] <= change.shape[1] else change.T)
        if float(squares[rank:].sum()) > RESOLVED * total:
            return _directions_by_gram(change, u[:, :rank])
    wide = min(rank + OVERSAMPLING, *change.shape)
    basis = _range_basis(change, wide, iterations=POWER_ITERATIONS)
    return _directions_in(basis, basis.T @ change)


def _directions_in(basis: Tensor, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The singular vectors and values of `basis` @ `inner`, whose basis is orthonormal."""
    u, s, v = torch.linalg.svd(inner, full_matrices=False)
    return basis @ u, s, v


def _gram_directions(wide: Tensor) -> tuple[Tensor, Tensor]:
    """(left singular vectors, squared singular values), in descending order, of a wide matrix."""
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    return vectors.flip(1), squares.flip(0).clamp(min=0)


def _directions_by_gram(change: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The singular vectors and values by the vectors of the shorter side."""
    is_wide = change.shape[0] <= change.shape[1]
    other = vectors.T @ (change if is_wide else change.T)
    values = torch.linalg.vector_norm(other, dim=1)
    other = other / values.clamp(min=torch.finfo(other.dtype).tiny)[:, None]
    return (vectors, values, other) if is_wide else (other.T, values, vectors.T)


def _significant_rank(values: Tensor, rounding: float) -> int:
    """The number of singular values (descending) until the rest is rounding noise; at least 1."""
    squares = values.double().square()
    beyond = squares.flip(0).cumsum(0).flip(0)  # of each value and all smaller ones
    return max(1, int((beyond > rounding**2 * squares.sum()).sum()))


def fold_mid_kernel(down: Tensor, mid: Tensor) -> Tensor:
    """The down (R, in, kh, kw) of a LoCon that stores its kernel in a third tensor.

    `down` is (R, in) or (R, in, 1, 1), `mid` (R, R, kh, kw). The rank is unchanged.
    """
    return torch.einsum("rskl,si->rikl", mid, down.flatten(1))


def fold_tucker_core(core: Tensor, a: Tensor, b: Tensor) -> Pair:
    """(a, b) with LyCORIS' core tensor (r, r, kh, kw) multiplied into a (r, out) and b (r, in).

    The result is (out, r) and (r, in * kh * kw), whose product is the flattened kernel.
    """
    return a.T.contiguous(), torch.einsum("ijkl,jn->inkl", core, b).flatten(1).contiguous()


def balance_pair(down: Tensor, up: Tensor) -> Pair:
    """The same product with both factors of each direction equally large, as suits fp16.

    Otherwise values of one factor may be smaller than 6e-8, the smallest number of fp16. The
    factors are only scaled by powers of two, so that no digit changes.
    """
    ratio = up.abs().amax(0) / down.abs().amax(1)
    shift = (torch.log2(ratio) / 2).round()
    shift = torch.where(shift.isfinite(), shift, 0.0)
    return torch.ldexp(down, shift[:, None]), torch.ldexp(up, -shift)


def squared_norm(matrix: Tensor) -> float:
    """The squared Frobenius norm."""
    return float(matrix.double().square().sum())


def squared_norm_of_product(down: Tensor, up: Tensor) -> float:
    """The squared Frobenius norm of up @ down without computing it, in R² (out + in) operations."""
    a, b = down.flatten(1).double(), up.flatten(1).double()
    return max(0.0, float(((a @ a.T) * (b.T @ b)).sum()))


def _hadamard_pair(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> Pair:
    """(sum_r a_r b_r) * (sum_s c_s d_s) = sum_rs (a_r * c_s) (b_r * d_s), a Khatri-Rao product."""
    if w1_a.shape[1] * w2_a.shape[1] > min(w1_a.shape[0], w1_b.shape[1]):
        return _full_matrix_pair((w1_a @ w1_b) * (w2_a @ w2_b))
    down = (w1_b[:, None] * w2_b[None]).flatten(0, 1)
    up = (w1_a[:, :, None] * w2_a[:, None]).flatten(1)
    return down, up


def _factor_pair(factors: Mapping[str, Tensor], name: str) -> Pair:
    if name in factors:
        return _full_matrix_pair(factors[name].flatten(1).contiguous())
    return _lower_rank_pair(factors[f"{name}_b"], factors[f"{name}_a"])


def _lower_rank_pair(down: Tensor, up: Tensor) -> Pair:
    """The pair itself, or its product and an identity if those have a lower rank."""
    return (
        _full_matrix_pair(up @ down)
        if down.shape[0] > min(up.shape[0], down.shape[1])
        else (down, up)
    )


def _full_matrix_pair(weight: Tensor) -> Pair:
    """A full matrix (out, in) as a pair: the matrix and the smaller identity."""
    identity = torch.eye(min(weight.shape), dtype=weight.dtype, device=weight.device)
    return (weight, identity) if weight.shape[0] <= weight.shape[1] else (identity, weight)


def _range_basis(change: Tensor, width: int, *, iterations: int) -> Tensor:
    """An orthonormal basis (out, width) that nearly spans the range of `change`."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(change.shape[1], width, generator=generator)
    basis: Tensor = torch.linalg.qr(change @ start.to(change))[0]
    for _ in range(iterations):
        back = torch.linalg.qr(change.T @ basis)[0]
        basis = torch.linalg.qr(change @ back)[0]
    return basis
