"""Adapters for transformers in the layouts in which programs write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.core.lora_files.canonical import LoraAdapter, LoraModule

Tensors = dict[str, Tensor]
OLD_LEAVES = ("lora_down.weight", "lora_up.weight", "alpha")
NEW_LEAVES = ("lora_A.weight", "lora_B.weight")


def dotted(adapter: LoraAdapter, prefix: str, *, alpha: bool = False) -> Tensors:
    return {
        f"{prefix}{m.path}.{leaf}": tensor
        for m in adapter.modules
        for leaf, tensor in (
            ("lora_A.weight", m.down),
            ("lora_B.weight", m.up),
            *([("alpha", torch.tensor(m.alpha))] if alpha else []),
        )
    }


def with_old_leaves(adapter: LoraAdapter, prefix: str, *, flat: bool = False) -> Tensors:
    return {
        f"{prefix}{m.path.replace('.', '_') if flat else m.path}.{leaf}": tensor
        for m in adapter.modules
        for leaf, tensor in (
            ("lora_down.weight", m.down),
            ("lora_up.weight", m.up),
            ("alpha", torch.tensor(m.alpha)),
        )
    }


def fused(
    adapter: LoraAdapter,
    own: Callable[[str], str],
    name: Callable[[str], str],
    leaves: Sequence[str] = OLD_LEAVES,
) -> Tensors:
    """The original model's layers: q, k and v are one, with rank and alpha times three.

    `own`: the name of a layer in that model, for which paths of diffusers may be parts.
    """
    layers: dict[str, list[LoraModule]] = {}
    for module in adapter.modules:
        layers.setdefault(own(module.path), []).append(module)
    tensors: Tensors = {}
    for layer, found in layers.items():
        parts = sorted(found, key=lambda part: "qkv".find(part.path.removesuffix("_proj")[-1]))
        tensors[f"{name(layer)}.{leaves[0]}"] = torch.cat([part.down for part in parts])
        tensors[f"{name(layer)}.{leaves[1]}"] = torch.block_diag(*(part.up for part in parts))
        if len(leaves) > 2:
            alpha = torch.tensor(parts[0].alpha * len(parts))
            tensors[f"{name(layer)}.{leaves[2]}"] = alpha
    return tensors


def kohya_name(path: str) -> str:
    return f"lora_unet_{path.replace('.', '_')}"


def write(path: Path, tensors: Tensors, header: Mapping[str, str] | None = None) -> Path:
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, dict(header or {}))
    return path
