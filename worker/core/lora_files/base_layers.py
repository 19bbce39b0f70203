"""The layers of a base model that adapters can change, by canonical key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base, make_source
from worker.core.bases.weights import build_module
from worker.core.families.adapter_files import adapted_components
from worker.core.families.family import Component
from worker.core.lora_files.compatible import adaptable_layers, layer_weight

LARGE_PARAMETERS = 1_000_000_000  # larger components are loaded in fp16, as bases are published


def adaptable_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The weight shape of every such layer, without loading weights. Raises BaseModelError."""
    info = inspect_base(path)
    source = make_source(info)
    return {
        f"{component}.{layer_path}": tuple(layer_weight(layer).shape)
        for component in Component
        if component in info.parameters and component in adapted_components(info.family)
        for layer_path, layer in adaptable_layers(
            component, build_module(*source.config(component))
        ).items()
    }


def open_base_weights(path: Path) -> Callable[[str], Tensor | None]:
    """A function that returns the weight of a layer by its key, or None for an unknown layer.

    A component is loaded when one of its layers is first read, and one at a time is in memory.
    Raises BaseModelError, here or when a component is loaded.
    """
    info = inspect_base(path)
    held: dict[str, dict[str, nn.Module]] = {}

    def weight(key: str) -> Tensor | None:
        component, _, layer_path = key.partition(".")
        if component not in set(Component) or component not in info.parameters:
            return None
        if component not in held:
            held.clear()
            large = info.parameters[component] > LARGE_PARAMETERS
            dtype = torch.float16 if large else torch.float32
            (module,) = load_base(path, dtype=dtype, components={component}).adaptable().values()
            held[component] = adaptable_layers(component, module)
        layer = held[component].get(layer_path)
        return None if layer is None else layer_weight(layer)

    return weight
