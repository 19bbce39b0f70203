"""Images from noise: one sampler for the samples of a run and for the playground.

DDIM (Song et al. 2020, arXiv 2010.02502) without added noise, so that a seed alone decides an
image. Classifier-free guidance: Ho and Salimans 2022, arXiv 2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from worker.core.bases.inspect import vae_factor
from worker.core.bases.text import PromptEmbeddings

OWN_SETTINGS = (
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
SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the UNet is told of a batch of images, a row for each; no `negative`: no guidance."""

    prompt: PromptEmbeddings
    negative: PromptEmbeddings | None
    guidance: float


def make_scheduler(config: Mapping[str, Any], *, prediction_type: str) -> DDIMScheduler:
    """DDIM on the noise schedule of a base's scheduler config, whichever sampler that names.

    What the config leaves open is as DDIM has it by default. Latents are never clipped. A schedule
    with zero terminal SNR has to begin at its very last timestep, hence trailing spacing (Lin et
    al. 2023, arXiv 2305.08891).
    """
    settings = {name: config[name] for name in OWN_SETTINGS if config.get(name) is not None}
    if settings.get("timestep_spacing") not in SPACINGS:
        settings["timestep_spacing"] = "leading"
    if settings.get("rescale_betas_zero_snr"):
        settings["timestep_spacing"] = "trailing"
    return DDIMScheduler(**settings, clip_sample=False, prediction_type=prediction_type)


def needs_negative(guidance: float) -> bool:
    """Whether images with this guidance are also drawn without their prompt."""
    return guidance > 1


def draw_latents(
    unet: Any,
    vae: Any,
    scheduler: DDIMScheduler,
    conditioning: Conditioning,
    *,
    seeds: Sequence[int],
    width: int,
    height: int,
    steps: int,
    device: torch.device | str,
    on_step: Callable[[int], None],
) -> Tensor:
    """The latents (n, channels, height, width) of an image for each seed; sides in pixels.

    `on_step(done)` is called after each step and may raise, which ends the drawing.
    """
    noise = _initial_noise(unet, vae, seeds, width=width, height=height).to(device)
    text = _both(conditioning)
    sizes = [height, width, 0, 0, height, width]  # an uncropped image of just this size
    time_ids = torch.tensor([sizes], dtype=torch.float32, device=device)
    time_ids = time_ids.expand(len(text.hidden), -1)
    scheduler.set_timesteps(steps)
    latents: Tensor = noise * scheduler.init_noise_sigma
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        batch = latents if conditioning.negative is None else torch.cat([latents, latents])
        predicted = predict(unet, batch, timestep.to(device), text, time_ids)
        if conditioning.negative is not None:
            away, towards = predicted.chunk(2)
            predicted = away + conditioning.guidance * (towards - away)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        on_step(done)
    return latents


def predict(
    unet: Any, latents: Tensor, timesteps: Tensor, text: PromptEmbeddings, time_ids: Tensor
) -> Tensor:
    """What the UNet predicts for latents (b, c, h, w), fp32; the same in training and in sampling.

    `time_ids` (b, 6) says to an SDXL UNet how large an image was and where it was cut; the
    others, whose texts have no pooled state, are not told.
    """
    added = None
    if text.pooled is not None:
        pooled = text.pooled.to(unet.dtype)
        added = {"text_embeds": pooled, "time_ids": time_ids.to(pooled)}
    (predicted,) = unet(
        latents.to(unet.dtype),
        timesteps,
        encoder_hidden_states=text.hidden.to(unet.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )
    return predicted.float()  # type: ignore[no-any-return]


def decode_latent(vae: Any, latent: Tensor) -> Tensor:
    """The pixels (3, height, width) of one latent (channels, height, width), around -1 to 1, fp32.

    One image at a time: the decoder needs the most memory of all.
    """
    weight = next(vae.parameters())
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = latent[None].to(weight.dtype) / vae.config.scaling_factor + shift
    with torch.autocast(weight.device.type, enabled=False):  # SDXL's overflows in fp16
        return vae.decode(scaled, return_dict=False)[0][0].float()  # type: ignore[no-any-return]


def to_image(pixels: Tensor) -> Image.Image:
    """The image of pixels (3, height, width) from -1 to 1."""
    levels = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def _initial_noise(unet: Any, vae: Any, seeds: Sequence[int], *, width: int, height: int) -> Tensor:
    """(n, channels, height, width), each image's from its own seed: the same in any company.

    It is made on the CPU, so that every device begins alike.
    """
    factor = vae_factor(vae.config)
    shape = (unet.config.in_channels, height // factor, width // factor)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _both(conditioning: Conditioning) -> PromptEmbeddings:
    """The negative prompts, where there are any, before the prompts."""
    prompt, negative = conditioning.prompt, conditioning.negative
    if negative is None:
        return prompt
    pooled = [part.pooled for part in (negative, prompt) if part.pooled is not None]
    return PromptEmbeddings(
        hidden=torch.cat([negative.hidden, prompt.hidden]),
        pooled=torch.cat(pooled) if pooled else None,
    )
