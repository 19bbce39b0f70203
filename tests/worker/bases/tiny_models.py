"""Small random bases with the real key layout: all blocks and types, tiny widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedModel,
)

from worker.core import starter
from worker.core.bases.tokenizer import clip_tokenizer

WIDTH = 64
STARTER_WIDTH = 192
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


# A step costs by the number of layers, not by their width. Where a test is not about the layout of
# the whole UNet, it takes one that has a layer of each type in few blocks.
SHALLOW_SD15: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
SYMMETRIC: dict[str, Any] = {
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
}
"""Beside `SHALLOW_SD15`, a UNet whose layers have the names of a single file."""
SHALLOW_SDXL: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (1, 1),
}

SD2_TEXT: dict[str, Any] = {
    "hidden_size": 1024,  # by which the family is recognized
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


def sd15_unet(**changes: Any) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
    }
    return UNet2DConditionModel(**(settings | changes))


def sdxl_unet(**changes: Any) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),  # 10 in the deepest blocks of the real one
        "attention_head_dim": (1, 1, 1),
        "use_linear_projection": True,
        "cross_attention_dim": 2 * WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
    }
    return UNet2DConditionModel(**(settings | changes))


def sd2_unet(**changes: Any) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": 1024,
        "attention_head_dim": 1,
        "use_linear_projection": True,
        "upcast_attention": True,
    }
    return UNet2DConditionModel(**(settings | changes))


def autoencoder(scaling_factor: float = 0.18215) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=scaling_factor,
        sample_size=64,
    )


def text_config(**changes: Any) -> CLIPTextConfig:
    settings = {
        "vocab_size": 49_408,
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "projection_dim": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 1,
        "bos_token_id": 49_406,
        "eos_token_id": 49_407,
        "pad_token_id": 1,
    }
    return CLIPTextConfig(**(settings | changes))


def save_sd15(folder: Path, **unet: Any) -> Path:
    """An SD 1.5 in miniature as a diffusers folder; `unet` changes the UNet's config."""
    torch.manual_seed(0)
    parts = {
        "unet": sd15_unet(**unet),
        "vae": autoencoder(),
        "text_encoder": CLIPTextModel(text_config()),
    }
    return _save(folder, "StableDiffusionPipeline", parts, {"tokenizer": "<|endoftext|>"})


def save_sd2(folder: Path, **unet: Any) -> Path:
    """An SD 2.x that predicts v, in miniature but for the width of its text encoder."""
    torch.manual_seed(4)
    text_encoder = CLIPTextModel(text_config(**SD2_TEXT))
    parts = {"unet": sd2_unet(**unet), "vae": autoencoder(), "text_encoder": text_encoder}
    _save(folder, "StableDiffusionPipeline", parts, {"tokenizer": "!"})
    DDIMScheduler(**SCHEDULER, prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    return folder


def save_sdxl(folder: Path, **unet: Any) -> Path:
    """An SDXL in miniature as a diffusers folder; `unet` changes the UNet's config."""
    torch.manual_seed(1)
    parts = {
        "unet": sdxl_unet(**unet),
        "vae": autoencoder(0.13025),
        "text_encoder": CLIPTextModel(text_config()),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(hidden_act="gelu")),
    }
    pads = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    return _save(folder, "StableDiffusionXLPipeline", parts, pads)


def save_two_blocks(folder: Path, *, is_sdxl: bool = False) -> Path:
    """An SD 1.5 or SDXL with as few operations as one can have.

    The UNet has a block on each side, one of them with attention, and nothing between them; a text
    encoder has one layer.
    """
    torch.manual_seed(2)
    added = {
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
    }
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        cross_attention_dim=2 * WIDTH if is_sdxl else WIDTH,
        attention_head_dim=8,
        **(added if is_sdxl else {}),
    )
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
    )
    config = text_config(num_hidden_layers=1)
    parts = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(config)}
    if not is_sdxl:
        return _save(folder, "StableDiffusionPipeline", parts, {"tokenizer": "<|endoftext|>"})
    parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    pads = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    return _save(folder, "StableDiffusionXLPipeline", parts, pads)


def save_small_starter(folder: Path) -> Path:
    """A base of the kinds of parts that the embedded one has, of 64 px and with random weights.

    It has few layers: a training step, and loading a download, cost by their number. Tokenizer and
    scheduler are those of the embedded base.
    """
    shutil.copytree(starter.PATH, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = {name: _config(folder / name) for name in ("unet", "text_encoder", "vae")}
    torch.manual_seed(3)
    config["text_encoder"] |= {
        "hidden_size": STARTER_WIDTH,
        "intermediate_size": 64,
        "projection_dim": STARTER_WIDTH,
        "num_hidden_layers": 2,
    }
    config["unet"] |= {
        "sample_size": 8,
        "block_out_channels": (32,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "layers_per_block": 1,
        "cross_attention_dim": STARTER_WIDTH,
    }
    parts = {
        "unet": UNet2DConditionModel.from_config(config["unet"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**config["text_encoder"])),
        "vae": AutoencoderTiny.from_config(config["vae"]),
    }
    for name, part in parts.items():
        _write(part.half(), folder / name)
    return folder


def _write(part: Any, folder: Path) -> None:
    """Write the files of its `save_pretrained`, which imports a compiler for it, in seconds."""
    if isinstance(part, PreTrainedModel):
        part.config.architectures, part.config.dtype = [type(part).__name__], part.dtype
        part.config.save_pretrained(folder)
        name = "model.safetensors"
    else:
        part.save_config(folder)
        name = "diffusion_pytorch_model.safetensors"
    save_file(part.state_dict(), folder / name, {"format": "pt"})


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def _save(folder: Path, pipeline: str, parts: dict[str, Any], pads: dict[str, str]) -> Path:
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        _write(part.eval(), folder / name)
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, type(part).__name__]
    for name, pad in pads.items():
        clip_tokenizer(length=77, pad=pad).save_pretrained(folder / name)
        index[name] = ["transformers", "CLIPTokenizer"]
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if pipeline == "StableDiffusionPipeline":
        index |= {
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
        }
    else:
        index["force_zeros_for_empty_prompt"] = True
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


# --- the same models in the LDM layout, written independently of the product's reader


def save_single(
    file: Path,
    *,
    unet: Any,
    vae: Any,
    encoders: dict[str, dict[str, Tensor]],
    metadata: dict[str, str] | None = None,
) -> Path:
    """A single file from modules; `encoders` maps a prefix to tensors already in its naming."""
    plain_first_up = not unet.config.up_block_types[0].startswith("CrossAttn")
    tensors = {
        f"model.diffusion_model.{unet_to_ldm(name, plain_first_up=plain_first_up)}": tensor
        for name, tensor in unet.state_dict().items()
    }
    for name, tensor in vae.state_dict().items():
        new = vae_to_ldm(name)
        square = ".attn_1." in new and new.endswith("weight") and ".norm." not in new
        tensors[f"first_stage_model.{new}"] = tensor[:, :, None, None] if square else tensor
    for prefix, encoder in encoders.items():
        tensors |= {prefix + name: tensor for name, tensor in encoder.items()}
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, file, metadata)
    return file


def unet_to_ldm(name: str, *, plain_first_up: bool) -> str:
    """The LDM name of a UNet tensor; see CompVis/stable-diffusion's openaimodel.py."""
    top = {
        "conv_in.": "input_blocks.0.0.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
    }
    for old, new in top.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    for old, new in {
        "norm1.": "in_layers.0.",
        "conv1.": "in_layers.2.",
        "norm2.": "out_layers.0.",
        "conv2.": "out_layers.3.",
        "time_emb_proj.": "emb_layers.1.",
        "conv_shortcut.": "skip_connection.",
    }.items():
        if ".resnets." in name:
            name = name.replace(f".{old}", f".{new}")
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = "1" if parts[1] == "attentions" else str(2 * int(parts[2]))
        return ".".join(["middle_block", place, *parts[3:]])
    block, kind, index = int(parts[1]), parts[2], int(parts[3])
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op.{parts[-1]}"
    if kind == "upsamplers":
        place = 1 if plain_first_up and block == 0 else 2
        return f"output_blocks.{3 * block + 2}.{place}.conv.{parts[-1]}"
    stem, number = (
        ("input_blocks", 3 * block + index + 1)
        if parts[0] == "down_blocks"
        else ("output_blocks", 3 * block + index)
    )
    return ".".join([stem, str(number), "1" if kind == "attentions" else "0", *parts[4:]])


def vae_to_ldm(name: str) -> str:
    """The LDM name of an autoencoder tensor (four levels)."""
    parts = name.split(".")
    side = parts[0]
    if len(parts) > 3 and parts[1] in ("down_blocks", "up_blocks"):
        down = parts[1] == "down_blocks"
        level = int(parts[2]) if down else 3 - int(parts[2])
        where = f"{side}.{'down' if down else 'up'}.{level}"
        if parts[3] in ("downsamplers", "upsamplers"):
            return f"{where}.{parts[3].removesuffix('rs')}.conv.{parts[-1]}"
        leaf = ".".join(parts[5:]).replace("conv_shortcut", "nin_shortcut")
        return f"{where}.block.{parts[4]}.{leaf}"
    if parts[1] == "mid_block":
        if parts[2] == "resnets":
            return f"{side}.mid.block_{int(parts[3]) + 1}.{'.'.join(parts[4:])}"
        leaf = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
        return f"{side}.mid.attn_1.{leaf[parts[4]]}.{parts[-1]}"
    return name.replace("conv_norm_out", "norm_out")


def clip_to_ldm(encoder: Any) -> dict[str, Tensor]:
    """CLIP-L's tensors as `cond_stage_model.transformer.` holds them."""
    state = encoder.state_dict()
    named = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in state.items()}
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return named


def clip_to_open_clip(encoder: Any, *, extra_layer: bool = False) -> dict[str, Tensor]:
    """A text model's tensors in OpenCLIP's naming; SD 2's have a last layer that nobody reads."""
    state = {n.removeprefix("text_model."): t for n, t in encoder.state_dict().items()}
    out = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        out["text_projection"] = state["text_projection.weight"].T
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    layers = encoder.config.num_hidden_layers
    for layer in range(layers + (1 if extra_layer else 0)):
        source = f"encoder.layers.{min(layer, layers - 1)}"
        target = f"transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            for old, new in names.items():
                out[f"{target}.{new}.{leaf}"] = state[f"{source}.{old}.{leaf}"]
            fused = [state[f"{source}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            out[f"{target}.attn.in_proj_{leaf}"] = torch.cat(fused)
    return out
