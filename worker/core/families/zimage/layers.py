"""Layers of Z-Image that adapters change, with shapes, without a base model.

They follow from the config of Tongyi-MAI/Z-Image, which Turbo shares. A test builds the same
network by diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worker.core.families.adapter_file import Shape, Shapes, denoiser_path
from worker.core.families.family import Component

WIDTH, HIDDEN, MODULATION = 3840, 10_240, 256
CAPTION, TIME, PATCH = 2560, 1024, 64  # of a caption token, inside the time embedding, of a patch
LAYERS, REFINERS = 30, 2
BLOCKS = {"layers": LAYERS, "noise_refiner": REFINERS, "context_refiner": REFINERS}
QUERY_KEY_VALUE = ("to_q", "to_k", "to_v")
_OUTSIDE_BLOCKS: dict[str, Shape] = {
    "all_x_embedder.2-1": (WIDTH, PATCH),
    "all_final_layer.2-1.linear": (PATCH, WIDTH),
    "all_final_layer.2-1.adaLN_modulation.1": (WIDTH, MODULATION),
    "t_embedder.mlp.0": (TIME, MODULATION),
    "t_embedder.mlp.2": (MODULATION, TIME),
    "cap_embedder.1": (WIDTH, CAPTION),
}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {"unet": ("ZImageTransformer2DModel", {})}
"""Class and config of the network; diffusers' defaults are the published sizes."""


def published_shapes() -> Shapes:
    """The weight shape of every layer that adapters change, by `<component>.<path>`."""
    paths = {**_OUTSIDE_BLOCKS, **dict(_block_layers())}
    return {f"{Component.DENOISER}.{path}": shape for path, shape in paths.items()}


def is_layer(key: str) -> bool:
    """True for the key of a layer that only Z-Image has."""
    path = denoiser_path(key)
    return path.startswith(tuple(f"{root}." for root in BLOCKS)) or path in _OUTSIDE_BLOCKS


def _block_layers() -> Iterator[tuple[str, Shape]]:
    for root, count in BLOCKS.items():
        for number in range(count):
            stem = f"{root}.{number}"
            for name in (*QUERY_KEY_VALUE, "to_out.0"):
                yield f"{stem}.attention.{name}", (WIDTH, WIDTH)
            yield f"{stem}.feed_forward.w1", (HIDDEN, WIDTH)
            yield f"{stem}.feed_forward.w2", (WIDTH, HIDDEN)
            yield f"{stem}.feed_forward.w3", (HIDDEN, WIDTH)
            if root != "context_refiner":
                yield f"{stem}.adaLN_modulation.0", (4 * WIDTH, MODULATION)
