"""Generates images from noise, or from an image: one loop for a run's samples and the playground.

The samples of a run, and the playground unless asked for another sampler, use DDIM (Song et al.
2020, arXiv 2010.02502) without added noise. Classifier-free guidance: Ho and Salimans 2022, arXiv
2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from worker.core.bases.inspect import vae_factor
from worker.core.families.network import Network
from worker.core.families.text_states import TextStates
from worker.core.inference.config import steps_to_run
from worker.core.inference.source_images import SourceLatents


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The text conditioning of a batch, one row per image; no guidance without `negative`."""

    prompt: TextStates
    negative: TextStates | None
    guidance: float


def needs_negative(guidance: float) -> bool:
    """True when this guidance needs a second, negative prediction."""
    return guidance > 1


def generate_latents(
    network: Network,
    denoiser: Any,
    vae: Any,
    scheduler: Any,
    conditioning: Conditioning,
    *,
    seeds: Sequence[int],
    width: int,
    height: int,
    steps: int,
    device: torch.device | str,
    on_step: Callable[[int], None],
    on_preview: Callable[[int, Tensor], None] | None = None,
    source: SourceLatents | None = None,
) -> Tensor:
    """The latents (n, channels, height, width), one image per seed; sides in pixels.

    `scheduler` is one of diffusers. The noise that it adds in a step comes from the generator of
    each image, which made the noise that the image begins with. With a `source`, the images begin
    with its noised latents, and only the last steps are run.

    `on_step(done)` is called after each step and may raise to stop the sampling; then
    `on_preview(done, latents)` with the clean latents (n, channels, height, width) that this step
    predicts.
    """
    generators = image_generators(seeds)
    text = _concat_negative(conditioning)
    sizes = _uncropped(len(text.hidden), width, height, device)
    clean = None if source is None else source.sample(generators)
    noise = initial_noise(denoiser, vae, generators, width=width, height=height).to(device)
    if hasattr(scheduler, "set_size"):  # a shift that depends on the size of the image
        scheduler.set_size(*noise.shape[-2:])
    set_timesteps(scheduler, steps)
    latents: Tensor
    if source is None or clean is None:
        timesteps, latents = scheduler.timesteps, noise * scheduler.init_noise_sigma
    else:
        timesteps = _last_timesteps(scheduler, steps_to_run(steps, source.strength))
        latents = _add_noise(scheduler, clean.to(device), noise, timesteps)
    for done, timestep in enumerate(timesteps, start=1):
        scaled = scheduler.scale_model_input(latents, timestep)
        batch = scaled if conditioning.negative is None else torch.cat([scaled, scaled])
        predicted = network.predict(denoiser, batch, timestep.to(device), text, sizes)
        if conditioning.negative is not None:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + conditioning.guidance * (conditional - unconditional)
        stepped = scheduler.step(
            predicted, timestep, latents, generator=generators, return_dict=False
        )
        latents = stepped[0]
        on_step(done)
        if on_preview is not None:
            on_preview(done, _predicted_clean(scheduler, stepped))
    return latents


def set_timesteps(scheduler: Any, steps: int) -> None:
    """Begin new images of so many steps.

    Trailing spacing counts down in floats, and for some numbers of steps, such as 61 of 1,000, goes
    on to a timestep of -1, which is left out. The first index is set, because schedulers look it up
    by the timestep, and would skip one where the first two are rounded to the same.
    """
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps:
        scheduler.timesteps = scheduler.timesteps[:steps]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


def _last_timesteps(scheduler: Any, steps: int) -> Tensor:
    """The last timesteps of those that were set, with which the scheduler then begins."""
    skipped = len(scheduler.timesteps) - steps
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler.timesteps[skipped:]  # type: ignore[no-any-return]


def _add_noise(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Latents (n, channels, height, width) with the noise of the first timestep, if there is one.

    A schedule of sigmas takes the noise level of its begin index.
    """
    if not len(timesteps):
        return clean
    first = timesteps[:1].repeat(len(clean))
    return scheduler.add_noise(clean, noise, first)  # type: ignore[no-any-return]


def _predicted_clean(scheduler: Any, stepped: Sequence[Tensor]) -> Tensor:
    """The clean latents that a step predicted.

    They are the second output of most schedulers; those of DPM-Solver++ keep them as the newest of
    their model outputs.
    """
    if len(stepped) > 1:
        return stepped[1]
    kept = getattr(scheduler, "model_outputs", None)
    return stepped[0] if not kept or kept[-1] is None else kept[-1]


def predict_noise(
    network: Network,
    denoiser: Any,
    conditioning: Conditioning,
    latents: Tensor,
    level: Tensor,
    *,
    width: int,
    height: int,
) -> Tensor:
    """One call of the denoiser as in a step of `generate_latents`: (n, c, h, w), or
    (2n, c, h, w) with the negative prediction first."""
    text = _concat_negative(conditioning)
    batch = latents if conditioning.negative is None else torch.cat([latents, latents])
    sizes = _uncropped(len(text.hidden), width, height, latents.device)
    return network.predict(denoiser, batch, level.to(latents.device), text, sizes)


def decode_latent(vae: Any, latent: Tensor) -> Tensor:
    """The pixels (3, height, width) of one latent (channels, height, width), about -1 to 1, fp32.

    One image at a time: the decoder needs more memory than any other part.
    """
    weight = next(vae.parameters())
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = latent[None].to(weight.dtype) / vae.config.scaling_factor + shift
    with torch.autocast(weight.device.type, enabled=False):  # SDXL's decoder overflows in fp16
        return vae.decode(scaled, return_dict=False)[0][0].float()  # type: ignore[no-any-return]


def to_image(pixels: Tensor) -> Image.Image:
    """The image of pixels (3, height, width) in -1 to 1; black when one of them is not finite."""
    if not torch.isfinite(pixels).all():
        pixels = torch.full_like(pixels, -1.0)
    levels = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def _uncropped(count: int, width: int, height: int, device: torch.device | str) -> Tensor:
    """The sizes (count, 6) of an uncropped image of this size."""
    sizes = [height, width, 0, 0, height, width]
    return torch.tensor([sizes], dtype=torch.float32, device=device).expand(count, -1)


def image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each image, which depends on its own seed alone.

    They are on the CPU, so that all devices get the same numbers.
    """
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_noise(
    denoiser: Any, vae: Any, generators: Sequence[torch.Generator], *, width: int, height: int
) -> Tensor:
    """The noise (n, channels, height, width) that images begin with, one per generator, on the
    CPU."""
    factor = vae_factor(vae.config)
    shape = (denoiser.config.in_channels, height // factor, width // factor)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _concat_negative(conditioning: Conditioning) -> TextStates:
    """The negative prompts, if any, followed by the prompts."""
    prompt, negative = conditioning.prompt, conditioning.negative
    return prompt if negative is None else TextStates.concat([negative, prompt])
