"""FLUX.2 klein in miniature: its real classes and layout, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen3ForCausalLM

from tests.worker.bases.tiny_zimage import qwen3_config, qwen_tokenizer

LAYERS = (1, 2, 3)  # of five: the quarters


def klein_transformer(*, heads: int = 2, double: int = 1, single: int = 2) -> Any:
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=3 * qwen3_config().hidden_size,
        timestep_guidance_channels=32,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=False,
    ).eval()


def klein_pipeline() -> Flux2KleinPipeline:
    torch.manual_seed(0)
    autoencoder = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    autoencoder.bn.running_mean.normal_(std=0.3)
    autoencoder.bn.running_var.uniform_(0.5, 1.5)
    made = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=autoencoder.eval(),
        text_encoder=Qwen3ForCausalLM(qwen3_config(num_hidden_layers=5)).eval(),
        tokenizer=qwen_tokenizer(),
        transformer=klein_transformer(),
        is_distilled=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_klein(folder: Path) -> Path:
    """The folder of a base with random weights."""
    klein_pipeline().save_pretrained(folder)
    return folder
