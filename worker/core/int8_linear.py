"""Frozen linear layers whose weights are int8 rows: half the memory of bf16.

Each row has one scale, the largest of its values / 127, as in LLM.int8() (Dettmers et al. 2022,
arXiv 2208.07339) without its outliers. Inputs stay as they are, so the arithmetic is that of the
input's type; gradients flow to the input and to the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 127  # on each side of zero


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The int8 rows (out, in) of a weight and their scales (out,), fp32."""
    values = weight.detach().float()
    scale = values.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
    return (values / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Linear):
    """A linear layer whose `weight` is int8; peft puts its adapters on it as on any other.

    Casting it to another floating-point type changes its bias alone. Merging into it would round
    the change away: adapters stay beside it.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        # not a parameter, which would be cast to the precision of a training
        self.register_buffer("scale", scale)
        self.register_parameter("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """The layer with its weight rounded."""
        return cls(*quantize_rows(linear.weight), linear.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The outputs (..., out) of inputs (..., in), in their type or in that of autocast."""
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        output: Tensor = _RowProduct.apply(input, self.weight, self.scale)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias.to(output)

    def dequantized(self) -> Tensor:
        """The weight (out, in) that these rows stand for, fp32."""
        return self.weight * self.scale[:, None]

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype is not scale.dtype:
            self.scale = scale.to(self.scale.device)
        return self


def quantize_linears(model: nn.Module, chosen: Callable[[str], bool]) -> int:
    """Round the linear layers whose path is chosen, one after another; their number."""
    paths = [
        path for path, layer in model.named_modules() if type(layer) is nn.Linear and chosen(path)
    ]
    for path in paths:
        model.set_submodule(path, Int8Linear.of(model.get_submodule(path)))  # type: ignore[arg-type]
    return len(paths)


class _RowProduct(torch.autograd.Function):
    """(x W^T) s; for the backward pass only int8 is kept, no copy of W in the type of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return (F.linear(x, weight.to(x.dtype)) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (weight, scale) = gradients, ctx.saved_tensors
        dtype = gradient.dtype
        return (gradient * scale).to(dtype) @ weight.to(dtype), None, None
