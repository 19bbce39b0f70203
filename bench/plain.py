"""A plain LoRA training for comparison, like diffusers' official script.

Our reimplementation of `examples/text_to_image/train_text_to_image_lora.py` (diffusers
0.42): in every step the images are decoded, resized and cropped, the VAE and the text encoder run,
and AdamW trains peft's layers in the UNet. It omits accelerate and its trackers, which only add
cost; unlike there, gradients are really clipped and the adapter stays fp32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from worker.core.bases.load import LoadedBase
from worker.core.training.data.images import TrainingImage

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """The settings that both contenders share."""

    batch_size: int
    rank: int
    learning_rate: float
    resolution: int
    bf16: bool = False
    seed: int = 0
    max_grad_norm: float = 1.0


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Images, transformed on each access like in the script."""

    def __init__(self, images: Sequence[TrainingImage], tokenizer: Any, resolution: int) -> None:
        self._images, self._tokenizer, self._resolution = images, tokenizer, resolution

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = self._images[index]
        tokens = self._tokenizer(
            image.caption,
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        with Image.open(image.path) as opened:
            pixels = _transform_image(opened.convert("RGB"), self._resolution)
        return {"pixel_values": pixels, "input_ids": tokens.input_ids[0]}


class PlainTrainer:
    """The trainer, built once; `step` takes one step."""

    def __init__(
        self, base: LoadedBase, images: Sequence[TrainingImage], config: PlainConfig
    ) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._unet, self._vae = base.denoiser, base.vae
        self._encoder = base.text_encoders[0]
        self._schedule = DDPMScheduler.from_config(base.scheduler_config)
        self._dtype = torch.bfloat16 if config.bf16 else torch.float32
        for part in (self._unet, self._vae, self._encoder):
            part.requires_grad_(False)
            if config.bf16:
                part.to(dtype=self._dtype)
        self._unet.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank,
                init_lora_weights="gaussian",
                target_modules=TARGETS,
            )
        )
        self._trained = [weight for weight in self._unet.parameters() if weight.requires_grad]
        for weight in self._trained:
            weight.data = weight.data.float()
        self._unet.train()
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
        )
        self._rates = get_scheduler("constant", optimizer=self._optimizer)
        self._batches = _endless(
            DataLoader(
                ImageDataset(images, base.tokenizers[0], config.resolution),
                shuffle=True,
                batch_size=config.batch_size,
                drop_last=True,
            )
        )
        self.seconds = {"pictures": 0.0, "encoders": 0.0, "step": 0.0}  # CPU, all threads

    @property
    def unet(self) -> Any:
        """The UNet in its current state."""
        return self._unet

    def step(self) -> float:
        """Take a step; return its loss."""
        with self._timed("pictures"):
            batch = next(self._batches)
        with self._timed("encoders"), self._autocast():
            latents = self._latents(batch["pixel_values"])
            text = self._encoder(batch["input_ids"], return_dict=False)[0]
        with self._timed("step"):
            return self._learn(latents, text)

    def _latents(self, pixels: Tensor) -> Tensor:
        encoded = self._vae.encode(pixels.to(self._dtype))
        if not hasattr(encoded, "latent_dist"):  # AutoencoderTiny
            return encoded.latents * self._vae.config.scaling_factor  # type: ignore[no-any-return]
        return encoded.latent_dist.sample() * self._vae.config.scaling_factor  # type: ignore[no-any-return]

    def _learn(self, latents: Tensor, text: Tensor) -> float:
        noise = torch.randn_like(latents)
        total = self._schedule.config.num_train_timesteps
        timesteps = torch.randint(0, total, (len(latents),)).long()
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        target = noise
        if self._schedule.config.prediction_type == "v_prediction":
            target = self._schedule.get_velocity(latents, noise, timesteps)
        with self._autocast():
            predicted = self._unet(noisy, timesteps, text, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), target.float(), reduction="mean")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained, self._config.max_grad_norm)
        self._optimizer.step()
        self._rates.step()
        self._optimizer.zero_grad()
        return float(loss.detach().item())

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._config.bf16)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[part] += time.process_time() - began


def _endless(loader: DataLoader[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    while True:
        yield from loader


def _transform_image(image: Image.Image, resolution: int) -> Tensor:
    """Shorter side to `resolution`, center crop, (3, h, w) in [-1, 1], like torchvision."""
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return pixels.sub(0.5).div(0.5)
