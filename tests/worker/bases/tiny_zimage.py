"""Z-Image in miniature as a diffusers folder: its real classes and layout, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
CHAT = (  # what Qwen3's own template writes for one turn of a user
    "{%- for m in messages -%}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{%- endif -%}"
)


def zimage_transformer(
    *, dim: int = 32, layers: int = 2, **changes: Any
) -> ZImageTransformer2DModel:
    """Two heads; the pad tokens, which are zeros at first, are filled so that they matter."""
    head = dim // 2
    settings = {
        "all_patch_size": (2,),
        "all_f_patch_size": (1,),
        "in_channels": 16,
        "dim": dim,
        "n_layers": layers,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 16,
        "axes_dims": [head // 2, head // 4, head // 4],
        "axes_lens": [640, 64, 64],  # the first holds 512 caption tokens, their padding, a frame
    }
    made = ZImageTransformer2DModel(**(settings | changes))
    with torch.no_grad():
        made.x_pad_token.normal_(std=0.02)
        made.cap_pad_token.normal_(std=0.02)
    return made


def qwen3_config(**changes: Any) -> Qwen3Config:
    settings = {
        "vocab_size": 264,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 640,
        "tie_word_embeddings": True,
    }
    return Qwen3Config(**(settings | changes))


def qwen_tokenizer(chat: str | None = CHAT) -> Qwen2Tokenizer:
    """Bytes only: 256 letters, no merges, and the special tokens that the template writes."""
    words = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=SPECIAL_TOKENS[1:3])
    made.chat_template = chat
    return made


def zimage_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )


def save_zimage(
    folder: Path, *, shift: float | None = 6.0, causal: bool = True, **transformer: Any
) -> Path:
    """A Z-Image in miniature; `causal`: its text encoder is stored as the published one is."""
    torch.manual_seed(4)
    text = (Qwen3ForCausalLM if causal else Qwen3Model)(qwen3_config()).eval()
    text.config.architectures = [type(text).__name__]
    parts = {
        "transformer": zimage_transformer(**transformer),
        "text_encoder": text,
        "vae": zimage_autoencoder(),
    }
    index: dict[str, Any] = {"_class_name": "ZImagePipeline", "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        is_text = name == "text_encoder"
        if is_text:
            part.config.save_pretrained(folder / name)
        else:
            part.save_config(folder / name)
        stem = "model" if is_text else "diffusion_pytorch_model"
        save_file(_stored(part), folder / name / f"{stem}.safetensors", {"format": "pt"})
        index[name] = ["transformers" if is_text else "diffusers", type(part).__name__]
    qwen_tokenizer().save_pretrained(folder / "tokenizer")
    index["tokenizer"] = ["transformers", "Qwen2Tokenizer"]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift or 1.0)
    scheduler.save_pretrained(folder / "scheduler")
    if shift is None:
        config = folder / "scheduler/scheduler_config.json"
        content = json.loads(config.read_text())
        del content["shift"]
        config.write_text(json.dumps(content))
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _stored(part: Any) -> dict[str, Tensor]:
    """Its tensors; the head of a language model is its embedding and is not stored twice."""
    return {name: t for name, t in part.state_dict().items() if name != "lm_head.weight"}
