"""The kinds of adapter: their matrices and initial values.

W (out, in) is a layer's weight, a convolution's kernel flattened into `in`; s is alpha / rank:

    LoRA  dW = s * up @ down                      Hu et al. 2021, arXiv 2106.09685
    LoHa  dW = s * (w1_a @ w1_b) * (w2_a @ w2_b)  FedPara, arXiv 2108.06098
    LoKr  dW = s * kron(w1, w2_a @ w2_b)          LyCORIS, arXiv 2309.14859
"""

import math
from collections.abc import Callable

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from worker.core.training.config import AdapterKind

ADAPTER_NAME = "default"
KIND_LABELS = {AdapterKind.LORA: "LoRA", AdapterKind.LOHA: "LoHa", AdapterKind.LOKR: "LoKr"}
# w1 is 8 x 8 in every layer whose sides 8 divides. Such a LoKr is a LoRA of 8 times its rank, as
# large as a LoHa of rank 8; peft's default, factors as equal as possible, makes it 32 to 80 times.
LOKR_FACTOR = 8

Initializer = Callable[[torch.Size, torch.Generator], Tensor]


def peft_config(
    kind: AdapterKind, *, rank: int, alpha: float, target_modules: list[str]
) -> PeftConfig:
    """The peft config of an adapter; every kind works at alpha / rank."""
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
        return {"down": layer.lora_A[ADAPTER_NAME].weight, "up": layer.lora_B[ADAPTER_NAME].weight}
    held = {name: getattr(layer, name) for name in layer.adapter_layer_names}
    return {
        name.partition("_")[2]: matrices[ADAPTER_NAME]
        for name, matrices in held.items()
        if ADAPTER_NAME in matrices
    }


def initial_values(
    kind: AdapterKind, factor: str, shape: torch.Size, generator: torch.Generator
) -> Tensor:
    """The initial values of a matrix, fp32; in each layer one matrix is zero, so dW is zero."""
    return _INITIALIZERS[kind][factor](shape, generator)


def _init_uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform in ±1/sqrt(fan in), as in peft, kohya and LyCORIS (kaiming with a = sqrt 5)."""
    bound = 1 / math.sqrt(shape[1:].numel())
    return torch.rand(shape, generator=generator) * (2 * bound) - bound


def _init_wide(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Normal with deviation 1 / rank as in diffusers' script, or peft's where that is larger.

    The first steps of a LoRA depend on these values. At low ranks they are larger than peft's, and
    60 steps reach a lower loss; at high ranks 1 / rank alone would be too small.
    """
    deviation = max(1 / shape[0], 1 / math.sqrt(3 * shape[1:].numel()))
    return torch.randn(shape, generator=generator) * deviation


def _init_normal(deviation: float) -> Initializer:
    return lambda shape, generator: torch.randn(shape, generator=generator) * deviation


def _init_zero(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


# LoHa and LoKr start as in KohakuBlueleaf/LyCORIS, lycoris/modules/loha.py and lokr.py. peft's LoHa
# starts so much smaller that it hardly learns at a LoRA's learning rate.
_INITIALIZERS: dict[AdapterKind, dict[str, Initializer]] = {
    AdapterKind.LORA: {"down": _init_wide, "up": _init_zero},
    AdapterKind.LOHA: {
        "w1_a": _init_normal(0.1),
        "w1_b": _init_normal(1.0),
        "w2_a": _init_zero,
        "w2_b": _init_normal(1.0),
    },
    AdapterKind.LOKR: {
        "w1": _init_uniform,
        "w2": _init_zero,
        "w2_a": _init_uniform,
        "w2_b": _init_zero,
    },
}
