"""Single checkpoint files in the LDM layout: their parts and configs, told from shapes alone.

The layout is that of CompVis/stable-diffusion and Stability-AI/generative-models. Nothing in such
a file names its configuration, so every width, depth and switch is read from the tensors' shapes;
what shapes cannot tell (heads, activation, scaling factor) is a constant of the family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.core.bases.family import (
    BaseFamily,
    BaseModelError,
    PredictionType,
    Shapes,
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
LAYERS_PER_BLOCK = 2  # of every SD 1.x, SD 2.x and SDXL UNet
HEAD_WIDTH = 64  # SD 2, SDXL and all CLIP text models
SD1_HEADS = 8
SD2_TEXT_LAYERS = 23  # as diffusers keeps it; OpenCLIP's ViT-H has 24

Parts = Mapping[str, Shapes]


def split(shapes: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of each component, without its prefix; BaseModelError when a part is missing."""
    parts = {name: _under(shapes, prefix) for name, prefix in PREFIXES.items()}
    for name, prefixes in ENCODER_PREFIXES.items():
        for prefix in prefixes:
            if found := _under(shapes, prefix):
                parts[name] = found
                break
    missing = [name for name in ("unet", "vae") if not parts[name]]
    if missing or not parts.keys() & ENCODER_PREFIXES.keys():
        what = " and ".join(missing) or "text encoder"
        raise BaseModelError(
            f"The file has no {what} in the layout of SD 1.x, SD 2.x or SDXL, so it is not a whole "
            "base model of these families."
        )
    return parts


def family(parts: Parts) -> BaseFamily:
    """The family of a split file."""
    if "text_encoder" not in parts:
        raise BaseModelError(
            "This is an SDXL refiner; Brushwork needs a whole SD 1.x, SD 2.x or SDXL base model."
        )
    return family_of(
        cross_attention_dim=cross_attention_width(parts["unet"]),
        two_encoders="text_encoder_2" in parts,
        size_conditioned="label_emb.0.0.weight" in parts["unet"],
    )


def latent_channels(parts: Parts) -> tuple[int, int]:
    """(channels the UNet takes, channels the autoencoder gives)."""
    return (
        _shape(parts["unet"], "input_blocks.0.0.weight")[1],
        _shape(parts["vae"], "decoder.conv_in.weight")[1],
    )


def prediction_type(
    family: BaseFamily, shapes: Shapes, metadata: Mapping[str, str]
) -> PredictionType:
    """What the header or a marker tensor says; otherwise v for SD 2 (as 2.1), else epsilon."""
    said = metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction", "v-prediction") or "v_pred" in shapes:
        return "v_prediction"
    if said == "epsilon":
        return "epsilon"
    return "v_prediction" if family is BaseFamily.SD2 else "epsilon"


def resolution(metadata: Mapping[str, str]) -> int | None:
    """The longer side in pixels that the header names, or None."""
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("modelspec.resolution", ""))
    return max(int(sides[1]), int(sides[2])) // 8 * 8 if sides else None


def scheduler_config(shapes: Shapes, prediction: PredictionType) -> dict[str, Any]:
    """The noise schedule all three families were trained with, for diffusers' DDIMScheduler."""
    zero_snr = "ztsnr" in shapes  # a marker that trainers of such models write
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
    inputs = 1 + max(_index(name, "input_blocks") for name in unet)
    levels = range(inputs // (LAYERS_PER_BLOCK + 1))
    first = [f"input_blocks.{(LAYERS_PER_BLOCK + 1) * level + 1}" for level in levels]
    widths = [_shape(unet, f"{block}.0.out_layers.3.weight")[0] for block in first]
    depths = [_depth(unet, f"{block}.1.transformer_blocks.") for block in first]
    linear = len(_shape(unet, "middle_block.1.proj_in.weight")) == 2
    config: dict[str, Any] = {
        "sample_size": resolution // 8,
        "in_channels": latent_channels(parts)[0],
        "out_channels": _shape(unet, "out.2.weight")[0],
        "block_out_channels": widths,
        "layers_per_block": LAYERS_PER_BLOCK,
        "down_block_types": ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if n else "UpBlock2D" for n in depths[::-1]],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "cross_attention_dim": cross_attention_width(unet),
        # diffusers calls the number of heads "attention_head_dim"
        "attention_head_dim": [max(1, w // HEAD_WIDTH) for w in widths] if linear else SD1_HEADS,
        "use_linear_projection": linear,
        "upcast_attention": family is BaseFamily.SD2,
    }
    if family is BaseFamily.SDXL:
        inputs_width = _shape(unet, "label_emb.0.0.weight")[1]
        pooled = _shape(parts["text_encoder_2"], "text_projection")[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (inputs_width - pooled) // 6,  # six sizes beside the text
            "projection_class_embeddings_input_dim": inputs_width,
        }
    return config


def vae_config(parts: Parts, family: BaseFamily, resolution: int) -> dict[str, Any]:
    """The config of diffusers' AutoencoderKL for the autoencoder in the file."""
    vae = parts["vae"]
    levels = 1 + max(_index(name, "encoder.down") for name in vae)
    widths = [_shape(vae, f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)]
    return {
        "sample_size": resolution,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": latent_channels(parts)[1],
        "block_out_channels": widths,
        "layers_per_block": 1 + max(_index(name, "encoder.down.0.block") for name in vae),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": family.facts.latent_scale,
        "force_upcast": True,
    }


def is_open_clip(encoder: Shapes) -> bool:
    """Whether a text encoder's tensors are named by OpenCLIP (SD 2, SDXL's second encoder)."""
    return "positional_embedding" in encoder


def text_config(encoder: Shapes, family: BaseFamily) -> dict[str, Any]:
    """The config of transformers' CLIPTextModel for a text encoder in the file."""
    if is_open_clip(encoder):
        words = _shape(encoder, "token_embedding.weight")
        layers = _depth(encoder, "transformer.resblocks.")
        middle = _shape(encoder, "transformer.resblocks.0.mlp.c_fc.weight")[0]
        length = _shape(encoder, "positional_embedding")[0]
        # SD 2 reads the state before the last layer, so diffusers leaves that layer out; files that
        # were made of a diffusers folder have lost it already
        if family is BaseFamily.SD2 and layers != SD2_TEXT_LAYERS:
            layers -= 1
    else:
        encoder = {name.removeprefix("text_model."): shape for name, shape in encoder.items()}
        words = _shape(encoder, "embeddings.token_embedding.weight")
        layers = _depth(encoder, "encoder.layers.")
        middle = _shape(encoder, "encoder.layers.0.mlp.fc1.weight")[0]
        length = _shape(encoder, "embeddings.position_embedding.weight")[0]
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


def _under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if len(shape := shapes.get(name, ())) < 2:
        raise BaseModelError(f"The base model is incomplete: the tensor {name} is missing.")
    return shape


def _index(name: str, block: str) -> int:
    """The number after `block.` in a tensor's name, or -1."""
    found = re.match(rf"{re.escape(block)}\.(\d{{1,3}})\.", name)
    return int(found[1]) if found else -1


def _depth(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules lie under `prefix`."""
    return 1 + max((_index(name, prefix.removesuffix(".")) for name in shapes), default=-1)
