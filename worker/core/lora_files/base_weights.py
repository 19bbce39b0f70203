"""Access to the weights of a base model by canonical key, one component in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base
from worker.core.lora_files.canonical import Component
from worker.core.lora_files.compatible import adaptable_layers

LARGE_PARAMETERS = 1_000_000_000  # larger components are loaded in fp16, as bases are published


def open_base_weights(path: Path) -> Callable[[str], Tensor | None]:
    """A function that returns the weight of a layer by its key, or None for an unknown layer.

    A component is loaded when one of its layers is first read. Raises BaseModelError, here or when
    a component is loaded.
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
            base = load_base(
                path, dtype=torch.float16 if large else torch.float32, components={component}
            )
            held[component] = adaptable_layers(
                component, next(iter(_loaded_modules(base).values()))
            )
        layer = held[component].get(layer_path)
        found = None if layer is None else layer.weight
        return found.detach() if isinstance(found, Tensor) else None

    return weight


def _loaded_modules(base: object) -> dict[str, nn.Module]:
    unet = getattr(base, "unet", None)
    encoders = getattr(base, "text_encoders", [])
    return {"unet": unet} if unet is not None else {"encoder": encoders[0]}
