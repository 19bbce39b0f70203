"""Adapters with their weights: checked together, and gone through layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.core.lora_files.canonical import Adapter, AdapterError, Component, LoraModule
from worker.core.lora_files.compatible import cross_attention_width

MAX_WEIGHT = 10.0
MAX_ADAPTERS = 16


class ToolError(AdapterError):
    """What was asked of a tool cannot be done; the sentence says why, and what could."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """An adapter and how strongly it counts, in the UNet and in the text encoders.

    `name` is what messages call it.
    """

    name: str
    adapter: Adapter
    weight: float = 1.0
    text_encoder_weight: float | None = None

    def of(self, component: Component) -> float:
        """The weight in this component; the text encoders' is the UNet's unless given."""
        if component is Component.UNET or self.text_encoder_weight is None:
            return self.weight
        return self.text_encoder_weight


@dataclass(frozen=True, eq=False)
class Part:
    """What one adapter says of a layer: weight · up @ down, as matrices in fp32.

    `index` is the adapter's place in the stack.
    """

    index: int
    weight: float
    module: LoraModule

    def factors(self) -> tuple[Tensor, Tensor]:
        """(up, down) as (out, rank) and (rank, in), with weight and alpha spread over both."""
        factor = self.weight * self.module.scale
        root = abs(factor) ** 0.5
        up = self.module.up.flatten(1).float() * math.copysign(root, factor)
        return up, self.module.down.flatten(1).float() * root

    def delta(self) -> Tensor:
        """The weighted change as one matrix (out, in)."""
        return self.module.delta().flatten(1) * self.weight


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that at least one adapter changes."""

    component: Component
    path: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def key(self) -> str:
        """`<component>.<path>`."""
        return f"{self.component}.{self.path}"

    def factors(self) -> tuple[Tensor, Tensor]:
        """(up, down) of the exact sum of all parts, side by side: the ranks add up."""
        pairs = [part.factors() for part in self.parts]
        return torch.cat([up for up, _ in pairs], 1), torch.cat([down for _, down in pairs], 0)


def check_weight(value: float, name: str) -> None:
    """Raise ToolError for a weight that is no number or beyond ±MAX_WEIGHT."""
    if not math.isfinite(value):
        raise ToolError(f"The weight of “{name}” is not a number.")
    if abs(value) > MAX_WEIGHT:
        raise ToolError(
            f"The weight of “{name}” is {value:g}; weights from {-MAX_WEIGHT:g} to "
            f"{MAX_WEIGHT:g} are accepted."
        )


def layers_of(stack: Sequence[Weighted]) -> list[Layer]:
    """Every layer that the stack changes, by key; parts of weight 0 are left out.

    Raises ToolError when the adapters are for different bases, or nothing is left.
    """
    for one in stack:
        for value in (one.weight, one.text_encoder_weight):
            if value is not None:
                check_weight(value, one.name)
    _check_bases(stack)
    found: dict[str, list[Part]] = {}
    for index, one in enumerate(stack):
        for module in one.adapter.modules:
            if (weight := one.of(module.component)) != 0:
                found.setdefault(module.key, []).append(Part(index, weight, module))
    if not found:
        raise ToolError("All weights are 0, so there is nothing to work with.")
    return [
        Layer(first.component, first.path, first.weight_shape, tuple(parts))
        for _, parts in sorted(found.items())
        for first in (parts[0].module,)
    ]


def _check_bases(stack: Sequence[Weighted]) -> None:
    """Raise ToolError unless all adapters change layers of the same shapes."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    widths: dict[int, str] = {}
    for one in stack:
        own = {module.key: module.weight_shape for module in one.adapter.modules}
        if (width := cross_attention_width(own)) is not None:
            widths.setdefault(width, one.name)
    if len(widths) > 1:
        (first, name), (second, other) = list(widths.items())[:2]
        raise ToolError(
            f"“{name}” and “{other}” are for different base models (cross-attention width {first} "
            f"and {second}). Only adapters for the same kind of base can be put together."
        )
    for one in stack:
        for module in one.adapter.modules:
            shape, owner = shapes.setdefault(module.key, (module.weight_shape, one.name))
            if shape != module.weight_shape:
                raise ToolError(
                    f"“{owner}” and “{one.name}” are for different base models: {module.key} is "
                    f"{_by(shape)} in one and {_by(module.weight_shape)} in the other."
                )


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
