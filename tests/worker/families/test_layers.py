"""The shapes we write down are those of the networks that diffusers and transformers build."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, ZImageTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from worker.core.families.adapter_files import FAMILIES_WITH_FILES, family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.compatible import adaptable_layers

UNETS: dict[BaseFamily, dict[str, Any]] = {
    BaseFamily.SD1: {"cross_attention_dim": 768, "attention_head_dim": 8},
    BaseFamily.SD2: {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    BaseFamily.SDXL: {
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
ENCODERS: dict[BaseFamily, list[dict[str, int]]] = {
    BaseFamily.SD1: [CLIP_L],
    BaseFamily.SD2: [OPEN_CLIP_H],
    BaseFamily.SDXL: [CLIP_L, CLIP_G],
    BaseFamily.ZIMAGE: [],  # never changed
}


@pytest.mark.parametrize("family", FAMILIES_WITH_FILES)
def test_every_layer_of_a_family_is_known_with_its_shape(family: BaseFamily) -> None:
    with torch.device("meta"):
        is_unet = family in UNETS  # the other's defaults are the published sizes
        parts = {
            "unet": UNet2DConditionModel(**UNETS[family]) if is_unet else ZImageTransformer2DModel()
        }
        for number, config in enumerate(ENCODERS[family], 1):
            kind = CLIPTextModel if number == 1 else CLIPTextModelWithProjection
            name = "text_encoder" if number == 1 else "text_encoder_2"
            parts[name] = kind(CLIPTextConfig(**config, num_attention_heads=16, vocab_size=64))
    built = {
        f"{component}.{path}": tuple(layer.weight.shape)
        for component, module in parts.items()
        for path, layer in adaptable_layers(component, module).items()
    }
    assert dict(family_shapes(family)) == built
