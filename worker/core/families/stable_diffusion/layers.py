"""Layers of SD 1.x, SD 2.x and SDXL that adapters change, with shapes, without a base model.

The shapes follow from a few numbers each (the configs of runwayml/stable-diffusion-v1-5,
stabilityai/stable-diffusion-2-1 and stabilityai/stable-diffusion-xl-base-1.0), so that the
family of a file can be detected without these bases. A test builds the same networks by diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.core.families.adapter_file import Shape, Shapes
from worker.core.families.family import BaseFamily, Component

Layer = tuple[str, Shape]
Config = Mapping[str, Any]

SD2_WIDTH = BaseFamily.SD2.facts.text_width
RESNETS = 2  # per down block; up blocks have one more


_PLAIN, _ATTENTIVE = "DownBlock2D", "CrossAttnDownBlock2D"
_SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_ATTENTIVE, _ATTENTIVE, _ATTENTIVE, _PLAIN),
    "transformer_layers_per_block": (1, 1, 1, 1),
}
_SD2 = {
    "use_linear_projection": True,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
}
_XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": (_PLAIN, _ATTENTIVE, _ATTENTIVE),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def _clip_config(width: int, count: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": count}


PUBLISHED: dict[BaseFamily, dict[str, tuple[str, dict[str, Any]]]] = {
    BaseFamily.SD1: {
        "unet": ("UNet2DConditionModel", {**_SD, "cross_attention_dim": 768}),
        "text_encoder": ("CLIPTextModel", _clip_config(768, 12)),
    },
    BaseFamily.SD2: {
        "unet": ("UNet2DConditionModel", {**_SD, **_SD2}),
        "text_encoder": ("CLIPTextModel", _clip_config(1024, 23) | {"num_attention_heads": 16}),
    },
    BaseFamily.SDXL: {
        "unet": ("UNet2DConditionModel", _XL),
        "text_encoder": ("CLIPTextModel", _clip_config(768, 12)),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            _clip_config(1280, 32) | {"num_attention_heads": 20, "projection_dim": 1280},
        ),
    },
}
"""Class and config of the published components of each family."""


def published_shapes(family: BaseFamily) -> Shapes:
    """The weight shape of every layer that adapters change, by `<component>.<path>`."""
    shapes: dict[str, Shape] = {}
    for component, (_, config) in PUBLISHED[family].items():
        layers = _unet_layers if component == Component.DENOISER else _encoder_layers
        shapes |= {f"{component}.{path}": shape for path, shape in layers(config)}
    return shapes


def cross_attention_width(shapes: Shapes) -> int | None:
    """The width of the text embeddings that the UNet layers in `shapes` read, or None."""
    for key, shape in shapes.items():
        if key.startswith("unet.") and key.endswith(("attn2.to_k", "attn2.to_v")):
            return shape[1]
    return None


def closest_family(shapes: Shapes) -> BaseFamily:
    """The family whose names layers of these shapes get, if they are of no published base."""
    width = cross_attention_width(shapes) or 0
    if width > SD2_WIDTH or any(key.startswith(Component.TEXT_ENCODER_2) for key in shapes):
        return BaseFamily.SDXL
    return BaseFamily.SD2 if width == SD2_WIDTH else BaseFamily.SD1


def _unet_layers(config: Config) -> Iterator[Layer]:
    sizes, kinds = config["block_out_channels"], config["down_block_types"]
    counts = config["transformer_layers_per_block"]
    depths = [0 if kind == _PLAIN else count for kind, count in zip(kinds, counts, strict=True)]
    first, last, blocks = sizes[0], sizes[-1], len(sizes)
    yield "conv_in", (first, 4, 3, 3)
    yield "conv_out", (4, first, 3, 3)
    yield "time_embedding.linear_1", (4 * first, first)
    yield "time_embedding.linear_2", (4 * first, 4 * first)
    if size_embedding := config.get("projection_class_embeddings_input_dim"):
        yield "add_embedding.linear_1", (4 * first, size_embedding)
        yield "add_embedding.linear_2", (4 * first, 4 * first)
    skips = [first]
    width = first
    for block, channels in enumerate(sizes):
        stem = f"down_blocks.{block}"
        for index in range(RESNETS):
            yield from _resnet_layers(f"{stem}.resnets.{index}", width, channels, 4 * first)
            yield from _attention_layers(
                f"{stem}.attentions.{index}", channels, depths[block], config
            )
            width = channels
            skips.append(width)
        if block < blocks - 1:
            yield f"{stem}.downsamplers.0.conv", (channels, channels, 3, 3)
            skips.append(channels)
    for index in range(2):
        yield from _resnet_layers(f"mid_block.resnets.{index}", last, last, 4 * first)
    yield from _attention_layers("mid_block.attentions.0", last, counts[-1], config)
    width = last
    for block, channels in enumerate(reversed(sizes)):
        stem = f"up_blocks.{block}"
        for index in range(RESNETS + 1):
            yield from _resnet_layers(
                f"{stem}.resnets.{index}", width + skips.pop(), channels, 4 * first
            )
            depth = depths[blocks - 1 - block]
            yield from _attention_layers(f"{stem}.attentions.{index}", channels, depth, config)
            width = channels
        if block < blocks - 1:
            yield f"{stem}.upsamplers.0.conv", (channels, channels, 3, 3)


def _resnet_layers(stem: str, inputs: int, outputs: int, time: int) -> Iterator[Layer]:
    yield f"{stem}.conv1", (outputs, inputs, 3, 3)
    yield f"{stem}.conv2", (outputs, outputs, 3, 3)
    yield f"{stem}.time_emb_proj", (outputs, time)
    if inputs != outputs:
        yield f"{stem}.conv_shortcut", (outputs, inputs, 1, 1)


def _attention_layers(stem: str, width: int, depth: int, config: Config) -> Iterator[Layer]:
    if not depth:
        return
    is_linear = config.get("use_linear_projection", False)
    for name in ("proj_in", "proj_out"):
        yield f"{stem}.{name}", (width, width) if is_linear else (width, width, 1, 1)
    for layer in range(depth):
        block = f"{stem}.transformer_blocks.{layer}"
        for attention, context in (("attn1", width), ("attn2", config["cross_attention_dim"])):
            yield f"{block}.{attention}.to_q", (width, width)
            yield f"{block}.{attention}.to_k", (width, context)
            yield f"{block}.{attention}.to_v", (width, context)
            yield f"{block}.{attention}.to_out.0", (width, width)
        yield f"{block}.ff.net.0.proj", (8 * width, width)  # GEGLU: one half is the gate
        yield f"{block}.ff.net.2", (width, 4 * width)


def _encoder_layers(config: Config) -> Iterator[Layer]:
    width = config["hidden_size"]
    for layer in range(config["num_hidden_layers"]):
        stem = f"text_model.encoder.layers.{layer}"
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{stem}.self_attn.{projection}", (width, width)
        yield f"{stem}.mlp.fc1", (4 * width, width)
        yield f"{stem}.mlp.fc2", (width, 4 * width)
