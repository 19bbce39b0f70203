"""The kinds of adapter: their matrices, and how those start.

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

from worker.core.lora_files.algebra import as_lora, balanced
from worker.core.training.config import AdapterKind

__all__ = ["NAME", "TITLES", "as_lora", "balanced", "factors_of", "peft_config", "start"]

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


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform in ±1/sqrt(fan in), as peft, kohya and LyCORIS start (kaiming with a = sqrt 5)."""
    bound = 1 / math.sqrt(shape[1:].numel())
    return torch.rand(shape, generator=generator) * (2 * bound) - bound


def _wide(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Normal with a deviation of 1 / rank as in diffusers' script, or peft's where that is more.

    What a LoRA learns in its first steps goes with these values. At low ranks they are larger
    than peft's, and 60 steps reach a lower loss; at high ranks 1 / rank alone would be too small.
    """
    deviation = max(1 / shape[0], 1 / math.sqrt(3 * shape[1:].numel()))
    return torch.randn(shape, generator=generator) * deviation


def _normal(deviation: float) -> Start:
    return lambda shape, generator: torch.randn(shape, generator=generator) * deviation


def _zero(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


# LoHa and LoKr start as in KohakuBlueleaf/LyCORIS, lycoris/modules/loha.py and lokr.py. peft's
# own LoHa starts so much smaller that it hardly learns at a LoRA's learning rate.
_STARTS: dict[AdapterKind, dict[str, Start]] = {
    AdapterKind.LORA: {"down": _wide, "up": _zero},
    AdapterKind.LOHA: {
        "w1_a": _normal(0.1),
        "w1_b": _normal(1.0),
        "w2_a": _zero,
        "w2_b": _normal(1.0),
    },
    AdapterKind.LOKR: {"w1": _uniform, "w2": _zero, "w2_a": _uniform, "w2_b": _zero},
}
