"""Layers of FLUX.2 klein 4B that adapters change, with shapes, without a base model.

They follow from the config of black-forest-labs/FLUX.2-klein-base-4B, which the distilled one
shares. A test builds the same network by diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worker.core.families.adapter_file import Shape, Shapes, denoiser_path
from worker.core.families.family import Component

WIDTH, HIDDEN = 3072, 9216
LATENT, TEXT, TIME = 128, 7680, 256
DOUBLE, SINGLE = "transformer_blocks", "single_transformer_blocks"
BLOCKS = {DOUBLE: 5, SINGLE: 20}
QUERY_KEY_VALUE = {
    "img": ("to_q", "to_k", "to_v"),
    "txt": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
OUTSIDE_BLOCKS: dict[str, Shape] = {
    "x_embedder": (WIDTH, LATENT),
    "context_embedder": (WIDTH, TEXT),
    "time_guidance_embed.timestep_embedder.linear_1": (WIDTH, TIME),
    "time_guidance_embed.timestep_embedder.linear_2": (WIDTH, WIDTH),
    "double_stream_modulation_img.linear": (6 * WIDTH, WIDTH),
    "double_stream_modulation_txt.linear": (6 * WIDTH, WIDTH),
    "single_stream_modulation.linear": (3 * WIDTH, WIDTH),
    "norm_out.linear": (2 * WIDTH, WIDTH),
    "proj_out": (LATENT, WIDTH),
}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": (
        "Flux2Transformer2DModel",
        {
            "num_layers": BLOCKS[DOUBLE],
            "num_single_layers": BLOCKS[SINGLE],
            "num_attention_heads": 24,
            "joint_attention_dim": TEXT,
            "guidance_embeds": False,
        },
    )
}
"""Class and config of the network; the rest are diffusers' defaults."""


def published_shapes() -> Shapes:
    """The weight shape of every layer that adapters change, by `<component>.<path>`."""
    paths = {**OUTSIDE_BLOCKS, **dict(_block_layers())}
    return {f"{Component.DENOISER}.{path}": shape for path, shape in paths.items()}


def is_layer(key: str) -> bool:
    """True for the key of a layer that only FLUX.2 has."""
    path = denoiser_path(key)
    return path.startswith(tuple(f"{root}." for root in BLOCKS)) or path in OUTSIDE_BLOCKS


def _block_layers() -> Iterator[tuple[str, Shape]]:
    for number in range(BLOCKS[DOUBLE]):
        stem = f"{DOUBLE}.{number}"
        for name in (*QUERY_KEY_VALUE["img"], *QUERY_KEY_VALUE["txt"], "to_out.0", "to_add_out"):
            yield f"{stem}.attn.{name}", (WIDTH, WIDTH)
        for name in ("ff", "ff_context"):
            yield f"{stem}.{name}.linear_in", (2 * HIDDEN, WIDTH)
            yield f"{stem}.{name}.linear_out", (WIDTH, HIDDEN)
    for number in range(BLOCKS[SINGLE]):
        yield f"{SINGLE}.{number}.attn.to_qkv_mlp_proj", (3 * WIDTH + 2 * HIDDEN, WIDTH)
        yield f"{SINGLE}.{number}.attn.to_out", (WIDTH, WIDTH + HIDDEN)
