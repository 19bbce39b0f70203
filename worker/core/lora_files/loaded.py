"""Adapters in memory with their weights, for generating images and for the tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.parts import Part


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter in memory with its weights; the text encoder weight defaults to the UNet's.

    `name` is its name in messages, and its key in caches: equal names mean equal tensors.
    `block_weights` multiply the weight in parts of the UNet; absent ones are 1.
    """

    name: str
    adapter: LoraAdapter
    weight: float = 1.0
    text_encoder_weight: float | None = None
    block_weights: Mapping[Part, float] = field(default_factory=dict)

    def weight_in(self, part: Part) -> float:
        """The weight with which the adapter changes this part of a base model."""
        if part is Part.TEXT:
            return self.weight if self.text_encoder_weight is None else self.text_encoder_weight
        return self.weight * self.block_weights.get(part, 1.0)
