"""Stacks of adapters with weights: checks, and the changes of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.core.families.adapter_files import denoiser_of
from worker.core.families.family import Component
from worker.core.families.stable_diffusion.layers import cross_attention_width
from worker.core.lora_files.canonical import LoraModule
from worker.core.lora_files.compatible import shape_text
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import part_of
from worker.core.lora_files.weights import weight_problem


class ToolError(AdapterError):
    """A tool cannot do what was requested; the sentence says why, and what to do instead."""


@dataclass(frozen=True, eq=False)
class LayerChange:
    """The change of a layer by one adapter: weight · up @ down, as matrices in fp32.

    `index`: the position of the adapter in the stack.
    """

    index: int
    weight: float
    module: LoraModule

    def factors(self) -> tuple[Tensor, Tensor]:
        """(up, down) as (out, rank) and (rank, in), with weight and alpha split between them."""
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
    changes: tuple[LayerChange, ...]

    @property
    def key(self) -> str:
        """`<component>.<path>`."""
        return f"{self.component}.{self.path}"

    def factors(self) -> tuple[Tensor, Tensor]:
        """(up, down) of the exact sum of all changes, concatenated: the ranks add up."""
        pairs = [change.factors() for change in self.changes]
        return torch.cat([up for up, _ in pairs], 1), torch.cat([down for _, down in pairs], 0)


def layers_of(stack: Sequence[LoadedAdapter]) -> list[Layer]:
    """The layers that the stack changes, ordered by key, without changes of weight 0.

    Raises ToolError if the adapters are for different bases, or no layer is changed.
    """
    for one in stack:
        for weight in (one.weight, one.text_encoder_weight or 0.0):
            if problem := weight_problem(weight, one.name):
                raise ToolError(problem)
    _check_bases(stack)
    found: dict[str, list[LayerChange]] = {}
    for index, one in enumerate(stack):
        for module in one.adapter.modules:
            if (weight := one.weight_in(part_of(module.key))) != 0:
                found.setdefault(module.key, []).append(LayerChange(index, weight, module))
    if not found:
        raise ToolError("All weights are 0. Set at least one to another value.")
    return [
        Layer(first.component, first.path, first.weight_shape, tuple(changes))
        for _, changes in sorted(found.items())
        for first in (changes[0].module,)
    ]


def _check_bases(stack: Sequence[LoadedAdapter]) -> None:
    """Raise ToolError unless all adapters change layers of the same shapes."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    widths: dict[int, str] = {}
    kinds: dict[str, tuple[str, str]] = {}
    for one in stack:
        own = {module.key: module.weight_shape for module in one.adapter.modules}
        kind, family = denoiser_of(own)
        kinds.setdefault(kind, (one.name, family.label))
        if (width := cross_attention_width(own)) is not None:
            widths.setdefault(width, one.name)
    if len(kinds) > 1:
        (name, label), (other, other_label) = list(kinds.values())[:2]
        raise ToolError(
            f"“{name}” is for {label} and “{other}” for {other_label}. Choose adapters for the "
            "same kind of base."
        )
    if len(widths) > 1:
        (first, name), (second, other) = list(widths.items())[:2]
        raise ToolError(
            f"“{name}” and “{other}” are for different base models (cross-attention width {first} "
            f"and {second}). Choose adapters for the same kind of base."
        )
    for one in stack:
        for module in one.adapter.modules:
            shape, owner = shapes.setdefault(module.key, (module.weight_shape, one.name))
            if shape != module.weight_shape:
                raise ToolError(
                    f"“{owner}” and “{one.name}” are for different base models: {module.key} is "
                    f"{shape_text(shape)} in one and {shape_text(module.weight_shape)} in the "
                    "other."
                )
