"""A stand-in for the base model that commit 57f004e embedded: its shapes, with random weights.

A training of that commit continues with it. Its own weights, 40 MB, are no longer shipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from worker.core.bases.tokenizer import clip_tokenizer

FINGERPRINT = "36702ed2535e8b07404d289c2b674f556d6042529e3b3c85cfd6381d8f2e8ea1"
"""That of the real one."""

PARAMETERS = {"unet": 17_384_144, "vae": 454_739, "text_encoder": 2_491_584}
TOKENS, POSITIONS = 6_000, 24


def save_old_starter(folder: Path) -> Path:
    """Save the stand-in as a diffusers folder in fp16."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {"unet": _unet(), "vae": _autoencoder(), "text_encoder": _encoder()}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert counts == PARAMETERS
    pipeline = StableDiffusionPipeline(
        **{name: part.half() for name, part in parts.items()},
        tokenizer=_tokenizer(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            steps_offset=1,
            timestep_spacing="trailing",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=(96, 192, 256),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=192,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def _autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
    )


def _encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=TOKENS,
            hidden_size=192,
            intermediate_size=768,
            projection_dim=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def _tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with its most frequent merges only."""
    whole = clip_tokenizer(length=POSITIONS, pad="<|endoftext|>")
    tokens = sorted(whole.get_vocab(), key=whole.get_vocab().__getitem__)[: TOKENS - 2]
    vocabulary = {token: 2 + place for place, token in enumerate(tokens)}
    vocabulary |= {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges = [tuple(pair) for pair in whole._merges if "".join(pair) in vocabulary]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=POSITIONS)
