"""The shapes we write down are those of the networks that diffusers and transformers build."""

from __future__ import annotations

import re
from functools import partial
from math import prod
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel, UNet2DConditionModel, ZImageTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from worker.core.families.adapter_files import family_shapes
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
DENOISERS = {
    **{family: partial(UNet2DConditionModel, **config) for family, config in UNETS.items()},
    BaseFamily.ZIMAGE: ZImageTransformer2DModel,  # its defaults are the published sizes
    BaseFamily.KLEIN: partial(  # transformer/config.json of FLUX.2-klein-base-4B
        Flux2Transformer2DModel,
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        joint_attention_dim=7680,
        guidance_embeds=False,
    ),
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
ENCODERS: dict[BaseFamily, list[dict[str, int]]] = {
    BaseFamily.SD1: [CLIP_L],
    BaseFamily.SD2: [OPEN_CLIP_H],
    BaseFamily.SDXL: [CLIP_L, CLIP_G],
    BaseFamily.ZIMAGE: [],  # never changed
    BaseFamily.KLEIN: [],
}


@pytest.mark.parametrize("family", [family for family in BaseFamily if family.facts.memory])
def test_the_share_that_can_be_int8_rows_is_that_of_the_trained_layers(family: BaseFamily) -> None:
    facts = family.facts
    trained = re.compile(f"unet\\.({facts.options.targets['linear']})")
    numbers = sum(prod(s) for key, s in family_shapes(family).items() if trained.fullmatch(key))
    assert facts.memory is not None
    assert facts.memory.int8_share == pytest.approx(numbers / facts.denoiser_parameters)


@pytest.mark.parametrize("family", BaseFamily)
def test_every_layer_of_a_family_is_known_with_its_shape(family: BaseFamily) -> None:
    with torch.device("meta"):
        parts = {"unet": DENOISERS[family]()}
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
