"""The kinds of adapter: their matrices, how those start, and the LoRA that does the same.

W (out, in) is a layer's weight, a convolution's kernel flattened into `in`; s is alpha / rank:

    LoRA  dW = s * up @ down                      Hu et al. 2021, arXiv 2106.09685
    LoHa  dW = s * (w1_a @ w1_b) * (w2_a @ w2_b)  FedPara, arXiv 2108.06098
    LoKr  dW = s * kron(w1, w2_a @ w2_b)          LyCORIS, arXiv 2309.14859
"""

import math
from collections.abc import Callable, Mapping

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from worker.training.config import AdapterKind

NAME = "default"
TITLES = {AdapterKind.LORA: "LoRA", AdapterKind.LOHA: "LoHa", AdapterKind.LOKR: "LoKr"}
# w1 is 8 x 8 in every layer that 8 divides. A LoKr then is a LoRA of 8 times its rank, as large
# as a LoHa of rank 8; peft's own choice, factors as equal as can be, makes it 32 to 80 times.
LOKR_FACTOR = 8

Start = Callable[[torch.Size, torch.Generator], Tensor]


def peft_config(
    kind: AdapterKind, *, rank: int, alpha: float, target_modules: list[str]
) -> PeftConfig:
    """What peft is told; every kind works at alpha / rank."""
    if kind is AdapterKind.LOHA:
        return LoHaConfig(r=rank, alpha=alpha, target_modules=target_modules)
    if kind is AdapterKind.LOKR:
        return LoKrConfig(
            r=rank,
            alpha=alpha,
            target_modules=target_modules,
            decompose_factor=LOKR_FACTOR,
        )
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules)


def factors_of(layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
    """The trained matrices of a peft layer by name, in a fixed order.

    LoRA: down (rank, in) or (rank, in, kh, kw), up (out, rank) or (out, rank, 1, 1).
    LoHa: w1_a and w2_a (out, rank), w1_b and w2_b (rank, in).
    LoKr: w1 (l, m), w2_a (k, rank), w2_b (rank, n) with l k = out and m n = in; where the rank is
    half of k or n, w2 (k, n) or (k, n, kh, kw) instead of two.
    """
    if isinstance(layer, LoraLayer):
        return {"down": layer.lora_A[NAME].weight, "up": layer.lora_B[NAME].weight}
    held = {name: getattr(layer, name) for name in layer.adapter_layer_names}
    return {
        name.partition("_")[2]: matrices[NAME]
        for name, matrices in held.items()
        if NAME in matrices
    }


def start(kind: AdapterKind, factor: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The first values of a matrix, fp32; in each layer one matrix is zero, so that dW is."""
    return _STARTS[kind][factor](shape, generator)


def as_lora(factors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(down (R, in), up (out, R)) with up @ down = dW at strength 1: exact, not an approximation.

    R is the least that the form allows: rank for LoRA; rank² for LoHa; min(l, m) times rank for
    LoKr; never more than out or in.
    """
    match factors:
        case {"down": down, "up": up}:
            return down.flatten(1), up.flatten(1)
        case {"w1_a": w1_a, "w1_b": w1_b, "w2_a": w2_a, "w2_b": w2_b}:
            return _hadamard(w1_a, w1_b, w2_a, w2_b)
        case {"w1": w1, "w2_a": w2_a, "w2_b": w2_b}:
            second = _least(w2_b, w2_a)
        case {"w1": w1, "w2": w2}:
            second = _whole(w2.flatten(1))
    first = _whole(w1)
    # (a b) kron (c d) = (a kron c) (b kron d)
    return torch.kron(first[0], second[0]), torch.kron(first[1], second[1])


def balanced(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with the halves of each direction equally large, for fp16's sake.

    A product of small factors may lie below fp16's least number, 6e-8, in one half while the
    other has room. Only powers of two are moved, so that no digit changes.
    """
    ratio = up.abs().amax(0) / down.abs().amax(1)
    shift = (torch.log2(ratio) / 2).round()
    shift = torch.where(shift.isfinite(), shift, 0.0)
    return torch.ldexp(down, shift[:, None]), torch.ldexp(up, -shift)


def _hadamard(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_r a_r b_r) * (sum_s c_s d_s) = sum_rs (a_r * c_s) (b_r * d_s), a Khatri-Rao product."""
    if w1_a.shape[1] * w2_a.shape[1] > min(w1_a.shape[0], w1_b.shape[1]):
        return _whole((w1_a @ w1_b) * (w2_a @ w2_b))
    down = (w1_b[:, None] * w2_b[None]).flatten(0, 1)
    up = (w1_a[:, :, None] * w2_a[:, None]).flatten(1)
    return down, up


def _least(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The pair itself, or its product beside an identity if that has the lower rank."""
    return _whole(up @ down) if down.shape[0] > min(up.shape[0], down.shape[1]) else (down, up)


def _whole(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A full matrix (out, in) as a pair: itself beside the smaller identity."""
    identity = torch.eye(min(weight.shape), dtype=weight.dtype, device=weight.device)
    return (weight, identity) if weight.shape[0] <= weight.shape[1] else (identity, weight)


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform in ±1/sqrt(fan in), as peft, kohya and LyCORIS start (kaiming with a = sqrt 5)."""
    bound = 1 / math.sqrt(shape[1:].numel())
    return torch.rand(shape, generator=generator) * (2 * bound) - bound


def _normal(deviation: float) -> Start:
    return lambda shape, generator: torch.randn(shape, generator=generator) * deviation


def _zero(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


# LoHa and LoKr start as in KohakuBlueleaf/LyCORIS, lycoris/modules/loha.py and lokr.py. peft's
# own LoHa starts so much smaller that it hardly learns at a LoRA's learning rate.
_STARTS: dict[AdapterKind, dict[str, Start]] = {
    AdapterKind.LORA: {"down": _uniform, "up": _zero},
    AdapterKind.LOHA: {
        "w1_a": _normal(0.1),
        "w1_b": _normal(1.0),
        "w2_a": _zero,
        "w2_b": _normal(1.0),
    },
    AdapterKind.LOKR: {"w1": _uniform, "w2": _zero, "w2_a": _uniform, "w2_b": _zero},
}
