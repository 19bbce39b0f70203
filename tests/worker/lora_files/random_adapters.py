"""Random adapters that fit a base, and the metadata to export them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.export import AdapterMetadata

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
CONVOLUTIONS = (
    ".conv1",
    ".conv2",
    ".conv_shortcut",
    ".time_emb_proj",
    "samplers.0.conv",
    ".proj_in",
    ".ff.net.2",
    ".fc1",
    ".fc2",
)


def targeted(key: str) -> bool:
    """True if a run can train the layer: attention, feed-forward, convolutions, both encoders."""
    return key.endswith((*ATTENTION, *CONVOLUTIONS))


def random_adapter(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    rank: int = 4,
    alpha: float = 8.0,
    strength: float = 0.1,
    seed: int = 0,
    choose: Callable[[str], bool] = targeted,
) -> LoraAdapter:
    """An adapter for the chosen layers in `shapes` (by canonical key)."""
    generator = torch.Generator().manual_seed(seed)
    modules = []
    for key, shape in shapes.items():
        component, _, path = key.partition(".")
        if not choose(key):
            continue
        down = torch.randn(rank, *shape[1:], generator=generator) / (4 * rank)
        kernel = [1] * (len(shape) - 2)
        up = torch.randn(shape[0], rank, *kernel, generator=generator) * strength
        modules.append(LoraModule(Component(component), path, down, up, alpha))
    return LoraAdapter(tuple(sorted(modules, key=lambda module: module.key)), {"made": "by a test"})


def metadata(**changes: Any) -> AdapterMetadata:
    settings: dict[str, Any] = {
        "title": "Chalkboard",
        "slug": "my chalk (final)!",
        "family": BaseFamily.SD1,
        "base_name": "starter",
        "resolution": 64,
        "created": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        "trigger_words": ("chalkboard", "board style"),
        "description": "Chalk lines on a green board.",
        "images": 24,
        "train_config": {"steps": 250, "sample_prompts": ["a secret prompt"], "rank": 4},
    }
    return AdapterMetadata(**(settings | changes))
