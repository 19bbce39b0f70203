"""Adapters in memory with their weights, for generating images and for the tools."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.lora_files.canonical import Component, LoraAdapter


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter in memory with its weights; the text encoder weight defaults to the UNet's.

    `name` is its name in messages, and its key in caches: equal names mean equal tensors.
    """

    name: str
    adapter: LoraAdapter
    weight: float = 1.0
    text_encoder_weight: float | None = None

    def weight_in(self, component: Component) -> float:
        """The weight with which the adapter changes this component."""
        if component is Component.UNET or self.text_encoder_weight is None:
            return self.weight
        return self.text_encoder_weight
