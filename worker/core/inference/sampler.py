"""The way from noise to latents: DDIM with the base's own noise schedule.

DDIM (Song et al. 2020, arXiv 2010.02502) without added noise, so that a seed alone decides a
picture. Classifier-free guidance: Ho and Salimans 2022, arXiv 2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from worker.core.bases.text import PromptEmbeddings


class RenderCanceled(Exception):
    """Somebody asked to stop between two steps."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the UNet is told: prompt and, where guidance is on, what to keep away from.

    `time_ids`: (1, 6) SDXL's sizes and crops in pixels, or None.
    """

    prompt: PromptEmbeddings
    negative: PromptEmbeddings | None
    guidance: float
    time_ids: Tensor | None


def ddim(config: Mapping[str, Any], *, prediction_type: str) -> DDIMScheduler:
    """DDIM on the noise schedule of a base's scheduler config, whichever sampler that names.

    Latents are never clipped. A schedule with zero terminal SNR must begin at its very last
    timestep, hence trailing spacing (Lin et al. 2023, arXiv 2305.08891).
    """
    settings = {
        name: config[name]
        for name in (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "set_alpha_to_one",
            "steps_offset",
            "timestep_spacing",
            "rescale_betas_zero_snr",
        )
        if name in config
    }
    settings.setdefault("set_alpha_to_one", False)
    if settings.get("timestep_spacing") not in ("leading", "trailing", "linspace"):
        settings["timestep_spacing"] = "leading"
    if settings.get("rescale_betas_zero_snr"):
        settings["timestep_spacing"] = "trailing"
    return DDIMScheduler(**settings, clip_sample=False, prediction_type=prediction_type)


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that a seed stands for, made on the CPU so that every device starts alike."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def denoise(
    unet: Any,
    scheduler: DDIMScheduler,
    noise: Tensor,
    conditioning: Conditioning,
    *,
    steps: int,
    on_step: Callable[[int], bool],
) -> Tensor:
    """The latents (1, channels, height, width) after `steps` steps from `noise`.

    `on_step(done)` is asked after each step; RenderCanceled is raised when it answers False.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    latents: Tensor = noise * scheduler.init_noise_sigma
    inputs = _unet_inputs(conditioning, unet.dtype)
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        batch = latents if conditioning.negative is None else torch.cat([latents, latents])
        batch = scheduler.scale_model_input(batch, timestep).to(unet.dtype)
        predicted = unet(batch, timestep, **inputs, return_dict=False)[0].float()
        if conditioning.negative is not None:
            away, towards = predicted.chunk(2)
            predicted = away + conditioning.guidance * (towards - away)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        if not on_step(done):
            raise RenderCanceled
    return latents


def _unet_inputs(conditioning: Conditioning, dtype: torch.dtype) -> dict[str, Any]:
    """The UNet's keyword arguments, the negative prompt before the prompt."""
    prompt, negative = conditioning.prompt, conditioning.negative
    both = [prompt] if negative is None else [negative, prompt]
    inputs: dict[str, Any] = {
        "encoder_hidden_states": torch.cat([part.hidden for part in both]).to(dtype)
    }
    if conditioning.time_ids is not None:
        pooled = [part.pooled for part in both if part.pooled is not None]
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.cat(pooled).to(dtype),
            "time_ids": conditioning.time_ids.to(dtype).repeat(len(both), 1),
        }
    return inputs
