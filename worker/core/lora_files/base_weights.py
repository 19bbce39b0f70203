"""The weights of a base's layers by canonical key, loaded when the first of a part is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base
from worker.core.lora_files.canonical import Component
from worker.core.lora_files.compatible import layers

LARGE = 1_000_000_000  # parameters: more of a part are held in fp16, as bases are published


def base_weights(path: Path) -> Callable[[str], Tensor | None]:
    """What gives the weight of a layer of the base at `path`; None for one it does not have.

    One part of the base is held at a time. Raises BaseModelError, now or when a part is loaded.
    """
    info = inspect_base(path)
    held: dict[str, dict[str, nn.Module]] = {}

    def weight(key: str) -> Tensor | None:
        component, _, layer_path = key.partition(".")
        if component not in set(Component) or component not in info.parameters:
            return None
        if component not in held:
            held.clear()
            large = info.parameters[component] > LARGE
            base = load_base(
                path, dtype=torch.float16 if large else torch.float32, components={component}
            )
            held[component] = layers(component, next(iter(_parts(base).values())))
        layer = held[component].get(layer_path)
        found = None if layer is None else layer.weight
        return found.detach() if isinstance(found, Tensor) else None

    return weight


def _parts(base: object) -> dict[str, nn.Module]:
    unet = getattr(base, "unet", None)
    encoders = getattr(base, "text_encoders", [])
    return {"unet": unet} if unet is not None else {"encoder": encoders[0]}
