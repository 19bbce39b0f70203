"""Single checkpoint files in the LDM layout: components and configs derived from shapes.

The layout is that of CompVis/stable-diffusion and Stability-AI/generative-models. The file does not
contain its configuration, so widths, depths and switches are read from tensor shapes; what shapes
do not show (heads, activation, scaling factor) is a constant of the family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.core.bases.family import BaseModelError, Shapes
from worker.core.families.family import BaseFamily
from worker.core.families.folder import PredictionType
from worker.core.families.others import refuse_file
from worker.core.families.stable_diffusion.folder import (
    SINGLE_FILES,
    cross_attention_width,
    family_of,
)

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
}
ENCODER_PREFIXES = {
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
}
LAYERS_PER_BLOCK = 2  # in every SD 1.x, SD 2.x and SDXL UNet
HEAD_WIDTH = 64  # SD 2, SDXL and all CLIP text models
SD1_HEADS = 8

Parts = Mapping[str, Shapes]


def split_components(shapes: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of each component without its prefix; BaseModelError when one is missing."""
    parts = {name: _strip_prefix(shapes, prefix) for name, prefix in PREFIXES.items()}
    for name, prefixes in ENCODER_PREFIXES.items():
        for prefix in prefixes:
            if found := _strip_prefix(shapes, prefix):
                parts[name] = found
                break
    refuse_file(shapes)
    missing = [name for name in ("unet", "vae") if not parts[name]]
    if missing or not parts.keys() & ENCODER_PREFIXES.keys():
        what = " and ".join(missing) or "text encoder"
        raise BaseModelError(
            f"The file has no {what} in the layout of SD 1.x, SD 2.x or SDXL. Use a complete base "
            "model of one of these families."
        )
    return parts


def family(parts: Parts) -> BaseFamily:
    """The family of a file's components."""
    if "text_encoder" not in parts:
        raise BaseModelError(
            "This is an SDXL refiner. Use a complete SD 1.x, SD 2.x or SDXL base model."
        )
    return family_of(
        cross_attention_dim=cross_attention_width(parts["unet"]),
        two_encoders="text_encoder_2" in parts,
        size_conditioned="label_emb.0.0.weight" in parts["unet"],
    )


def latent_channels(parts: Parts) -> tuple[int, int]:
    """(input channels of the UNet, latent channels of the autoencoder)."""
    return (
        _require_shape(parts["unet"], "input_blocks.0.0.weight")[1],
        _require_shape(parts["vae"], "decoder.conv_in.weight")[1],
    )


def prediction_type(
    family: BaseFamily, shapes: Shapes, metadata: Mapping[str, str]
) -> PredictionType:
    """The prediction type in the header or a marker tensor; else the family's usual one."""
    declared = metadata.get("modelspec.prediction_type", "").lower()
    if declared in ("v", "v_prediction", "v-prediction") or "v_pred" in shapes:
        return "v_prediction"
    if declared == "epsilon":
        return "epsilon"
    return SINGLE_FILES[family].prediction_type


def resolution(metadata: Mapping[str, str]) -> int | None:
    """The longer side in pixels from the header, or None."""
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("modelspec.resolution", ""))
    return max(int(sides[1]), int(sides[2])) // 8 * 8 if sides else None


def scheduler_config(shapes: Shapes, prediction: PredictionType) -> dict[str, Any]:
    """The noise schedule that all three families use, for diffusers' DDIMScheduler."""
    zero_snr = "ztsnr" in shapes  # a marker that trainers of zero-terminal-SNR models write
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction,
        "timestep_spacing": "trailing" if zero_snr else "leading",
        "rescale_betas_zero_snr": zero_snr,
    }


def unet_config(parts: Parts, family: BaseFamily, resolution: int) -> dict[str, Any]:
    """The config of diffusers' UNet2DConditionModel for the UNet in the file."""
    unet = parts["unet"]
    inputs = 1 + max(_block_index(name, "input_blocks") for name in unet)
    levels = range(inputs // (LAYERS_PER_BLOCK + 1))
    first = [f"input_blocks.{(LAYERS_PER_BLOCK + 1) * level + 1}" for level in levels]
    widths = [_require_shape(unet, f"{block}.0.out_layers.3.weight")[0] for block in first]
    depths = [_count_blocks(unet, f"{block}.1.transformer_blocks.") for block in first]
    linear = len(_require_shape(unet, "middle_block.1.proj_in.weight")) == 2
    config: dict[str, Any] = {
        "sample_size": resolution // 8,
        "in_channels": latent_channels(parts)[0],
        "out_channels": _require_shape(unet, "out.2.weight")[0],
        "block_out_channels": widths,
        "layers_per_block": LAYERS_PER_BLOCK,
        "down_block_types": ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if n else "UpBlock2D" for n in depths[::-1]],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "cross_attention_dim": cross_attention_width(unet),
        # diffusers calls the number of heads "attention_head_dim"
        "attention_head_dim": [max(1, w // HEAD_WIDTH) for w in widths] if linear else SD1_HEADS,
        "use_linear_projection": linear,
        "upcast_attention": SINGLE_FILES[family].upcast_attention,
    }
    if "label_emb.0.0.weight" in unet:
        inputs_width = _require_shape(unet, "label_emb.0.0.weight")[1]
        pooled = _require_shape(parts["text_encoder_2"], "text_projection")[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (inputs_width - pooled)
            // 6,  # six sizes are concatenated with the text
            "projection_class_embeddings_input_dim": inputs_width,
        }
    return config


def vae_config(parts: Parts, family: BaseFamily, resolution: int) -> dict[str, Any]:
    """The config of diffusers' AutoencoderKL for the autoencoder in the file."""
    vae = parts["vae"]
    levels = 1 + max(_block_index(name, "encoder.down") for name in vae)
    widths = [
        _require_shape(vae, f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)
    ]
    return {
        "sample_size": resolution,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": latent_channels(parts)[1],
        "block_out_channels": widths,
        "layers_per_block": 1 + max(_block_index(name, "encoder.down.0.block") for name in vae),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": family.facts.latent_scale,
        "force_upcast": True,
    }


def is_open_clip(encoder: Shapes) -> bool:
    """True when a text encoder uses OpenCLIP's names (SD 2, SDXL's second encoder)."""
    return "positional_embedding" in encoder


def text_config(encoder: Shapes, family: BaseFamily) -> dict[str, Any]:
    """The config of transformers' CLIPTextModel for a text encoder in the file."""
    if is_open_clip(encoder):
        words = _require_shape(encoder, "token_embedding.weight")
        layers = _count_blocks(encoder, "transformer.resblocks.")
        middle = _require_shape(encoder, "transformer.resblocks.0.mlp.c_fc.weight")[0]
        length = _require_shape(encoder, "positional_embedding")[0]
        # files that were converted from a diffusers folder have lost the last layer already
        if SINGLE_FILES[family].text_layers not in (None, layers):
            layers -= 1
    else:
        encoder = {name.removeprefix("text_model."): shape for name, shape in encoder.items()}
        words = _require_shape(encoder, "embeddings.token_embedding.weight")
        layers = _count_blocks(encoder, "encoder.layers.")
        middle = _require_shape(encoder, "encoder.layers.0.mlp.fc1.weight")[0]
        length = _require_shape(encoder, "embeddings.position_embedding.weight")[0]
    projection = encoder.get("text_projection", (words[1], words[1]))[1]
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "intermediate_size": middle,
        "projection_dim": projection,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, words[1] // HEAD_WIDTH),
        "max_position_embeddings": length,
        "hidden_act": "gelu" if "positional_embedding" in encoder else "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }


def _strip_prefix(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}


def _require_shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if len(shape := shapes.get(name, ())) < 2:
        raise BaseModelError(f"The base model is incomplete: {name} is missing. Download it again.")
    return shape


def _block_index(name: str, block: str) -> int:
    """The number after `block.` in a tensor name, or -1."""
    found = re.match(rf"{re.escape(block)}\.(\d{{1,3}})\.", name)
    return int(found[1]) if found else -1


def _count_blocks(shapes: Shapes, prefix: str) -> int:
    """The number of numbered modules under `prefix`."""
    return 1 + max((_block_index(name, prefix.removesuffix(".")) for name in shapes), default=-1)
