"""Module names are converted to those of other programs and back without loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.base_shapes import base_shapes
from tests.worker.bases.tiny_models import unet_to_ldm
from worker.core.bases.load import load_base
from worker.core.families.adapter_file import UnknownNameError
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.names import from_kohya_stem, kohya_stem

UNET, TEXT, TEXT_2 = Component.DENOISER, Component.TEXT_ENCODER, Component.TEXT_ENCODER_2


@pytest.mark.parametrize(
    ("component", "path", "family", "stem"),
    [
        (
            UNET,
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
            BaseFamily.SD1,
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        ),
        (
            UNET,
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            BaseFamily.SDXL,
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        ),
        (
            UNET,
            "down_blocks.0.downsamplers.0.conv",
            BaseFamily.SDXL,
            "lora_unet_input_blocks_3_0_op",
        ),
        (
            UNET,
            "up_blocks.0.upsamplers.0.conv",
            BaseFamily.SDXL,
            "lora_unet_output_blocks_2_2_conv",
        ),
        (
            UNET,
            "mid_block.resnets.1.time_emb_proj",
            BaseFamily.SDXL,
            "lora_unet_middle_block_2_emb_layers_1",
        ),
        (
            TEXT,
            "text_model.encoder.layers.0.self_attn.q_proj",
            BaseFamily.SD1,
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        ),
        (
            TEXT,
            "text_model.encoder.layers.11.mlp.fc2",
            BaseFamily.SDXL,
            "lora_te1_text_model_encoder_layers_11_mlp_fc2",
        ),
        (
            TEXT_2,
            "text_model.encoder.layers.31.self_attn.out_proj",
            BaseFamily.SDXL,
            "lora_te2_text_model_encoder_layers_31_self_attn_out_proj",
        ),
    ],
)
def test_kohya_stems_are_those_that_loaders_know(
    component: Component, path: str, family: BaseFamily, stem: str
) -> None:
    assert kohya_stem(family, component, path) == stem
    assert from_kohya_stem(stem) == (component, path)


@pytest.mark.parametrize("family", [BaseFamily.SD1, BaseFamily.SDXL])
def test_every_layer_of_a_base_keeps_its_name_both_ways(
    family: BaseFamily, sd15_folder: Path, sdxl_folder: Path
) -> None:
    base = load_base(sdxl_folder if family is BaseFamily.SDXL else sd15_folder)
    for key in base_shapes(base):
        component, _, path = key.partition(".")
        stem = kohya_stem(family, Component(component), path)
        assert from_kohya_stem(stem) == (component, path)
        if component == "unet" and family is BaseFamily.SDXL:
            ldm = unet_to_ldm(f"{path}.weight", plain_first_up=False).removesuffix(".weight")
            assert stem == "lora_unet_" + ldm.replace(".", "_")


@pytest.mark.parametrize(
    "stem",
    [
        "lora_unet_double_blocks-0",
        "lora_unet_input_blocks_x_1_to_q",
        "lora_unet_input_blocks_4",
        "lora_transformer_layers_0",
        "lora_unet_../../etc",
        "lora_unet_",
    ],
)
def test_unknown_names_are_reported(stem: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown name"):
        from_kohya_stem(stem)
