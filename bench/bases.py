"""Base models and images for the benchmarks: small and full-size, without a download."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from worker.core import starter
from worker.core.bases.family import BaseInfo
from worker.core.bases.load import LoadedBase, load_base
from worker.core.bases.tokenizer import clip_tokenizer
from worker.core.families.family import BaseFamily
from worker.core.starter.examples import CHALKBOARD
from worker.core.training.data.images import TrainingImage, read_folder

SCHEDULE = {
    "num_train_timesteps": 1_000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
TINY_UNET = {
    "sample_size": 16,
    "layers_per_block": 1,
    "block_out_channels": (64, 128, 192),
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
SDXL_COUNT_UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (1, 2, 2),
    "use_linear_projection": True,
    "cross_attention_dim": 128,
}
TINY_TEXT = {
    "vocab_size": 49_408,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD15_TEXT = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
RANDOM_BLOCK = 1 << 20
PICTURE_SIDE = 512


def tiny() -> LoadedBase:
    """8.8 M UNet, 0.95 M VAE that halves twice (64 px are 16 x 16 latents), random weights."""
    return _random_base(TINY_UNET, _vae((32, 64, 64), layers=1), TINY_TEXT, resolution=64)


def sdxl_count() -> LoadedBase:
    """As many layers as SDXL's UNet, 560 of them in attention, and few channels; random weights.

    What a layer costs besides its arithmetic shows, as on a GPU that is faster than Python.
    """
    return _random_base(SDXL_COUNT_UNET, _vae((32, 64, 64), layers=1), TINY_TEXT, resolution=64)


def sd15() -> LoadedBase:
    """The exact shapes of Stable Diffusion 1.5 (860 M UNet), random weights, for 128 px."""
    return _random_base(SD15_UNET, sd15_vae(), SD15_TEXT, resolution=128)


def sd15_vae() -> dict[str, Any]:
    """The config of Stable Diffusion 1.5's autoencoder."""
    return _vae((128, 256, 512, 512), layers=2)


def embedded() -> LoadedBase:
    """The embedded trained base."""
    return load_base(starter.PATH)


BASES: dict[str, Callable[[], LoadedBase]] = {
    "tiny": tiny,
    "sd15": sd15,
    "starter": embedded,
    "sdxl-count": sdxl_count,
}


def pictures(base: str, folder: Path, *, count: int) -> list[TrainingImage]:
    """Captioned images of 512 px: the example style for `starter`, else synthetic in `folder`."""
    if base == "starter":
        return read_folder(CHALKBOARD.folder)
    if not (folder / "metadata.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [_draw(folder, number) for number in range(count)]
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return read_folder(folder)


def many(image: TrainingImage, count: int) -> list[TrainingImage]:
    """Links to one image file that count as different images for code that does not open them."""
    return [
        TrainingImage(
            image.path, hashlib.sha256(f"{number}".encode()).hexdigest(), f"picture number {number}"
        )
        for number in range(count)
    ]


def _draw(folder: Path, number: int) -> dict[str, str]:
    """A colored wave with some grain, so that the file is as large as a typical image."""
    chance = np.random.default_rng(number)
    across = np.linspace(0, 1, PICTURE_SIDE)
    waves = [
        np.sin(across[:, None] * a + across[None] * b + c)
        for a, b, c in chance.uniform(0, 9, (3, 3))
    ]
    grain = chance.normal(0, 6, (PICTURE_SIDE, PICTURE_SIDE, 1))
    values = np.stack(waves, axis=-1) * 90 + 128 + grain
    name = f"{number:03}.png"
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / name)
    return {"file_name": name, "text": f"waves number {number}, wavy style"}


def _vae(widths: tuple[int, ...], *, layers: int) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "latent_channels": 4,
    }


def _random_base(
    unet: dict[str, Any], vae: dict[str, Any], text: dict[str, Any], *, resolution: int
) -> LoadedBase:
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(**text, bos_token_id=49_406, eos_token_id=49_407, pad_token_id=1)
            ),
        }
    for part in parts.values():
        fill_randomly(part)
    info = BaseInfo(
        path=Path("random"),
        layout="diffusers",
        family=BaseFamily.SD1,
        prediction_type="epsilon",
        resolution=resolution,
        cross_attention_dim=unet["cross_attention_dim"],
        parameters={
            name: sum(weight.numel() for weight in part.parameters())
            for name, part in parts.items()
        },
        size_bytes=0,
        fingerprint="random",
        zero_empty_negative=False,
    )
    return LoadedBase(
        info,
        denoiser=parts["unet"],
        vae=parts["vae"],
        text_encoders=[parts["text_encoder"]],
        tokenizers=[clip_tokenizer(length=77, pad="<|endoftext|>")],
        scheduler_config=dict(DDPMScheduler(**SCHEDULE).config),
    )


def fill_randomly(
    part: nn.Module, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Random weights of the usual size, from one block of numbers: 860 M draws take too long.

    `part` has no memory yet (torch's meta device).
    """
    block = torch.randn(RANDOM_BLOCK, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    nn.Module.to(part, dtype).to_empty(device=device).requires_grad_(False).eval()
    for name, weight in part.named_parameters():
        if weight.dim() == 1:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        fan_in = math.prod(weight.shape[1:])
        repeated = block.repeat(-(-weight.numel() // RANDOM_BLOCK))[: weight.numel()]
        weight.data.copy_(repeated.view(weight.shape)).mul_(1 / math.sqrt(fan_in))
    for name, buffer in list(part.named_buffers()):  # CLIP's positions, the only buffer
        owner, _, leaf = name.rpartition(".")
        positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        part.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
