"""The layers of a base that adapters can change, without loading its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import COMPONENTS, make_source
from worker.core.bases.weights import build_module
from worker.core.lora_files.compatible import adaptable_layers


def adaptable_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The weight shape of every such layer, by `<component>.<path>`. Raises BaseModelError."""
    info = inspect_base(path)
    source = make_source(info)
    shapes: dict[str, tuple[int, ...]] = {}
    for component in COMPONENTS:
        if component == "vae" or component not in info.parameters:
            continue
        module = build_module(*source.config(component))  # without allocating its weights
        for layer_path, layer in adaptable_layers(component, module).items():
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            shapes[f"{component}.{layer_path}"] = tuple(weight.shape)
    return shapes
