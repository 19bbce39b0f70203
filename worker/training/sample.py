"""Pictures drawn on the way, to watch the adapter learn.

DDIM (Song et al. 2021, arXiv 2010.02502) with classifier-free guidance (Ho & Salimans 2022, arXiv
2207.12598). All randomness comes from the sample seed, none from the training's generators.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from worker.training.config import MAX_SEED, PredictionType, TrainConfig
from worker.training.denoise import predict
from worker.training.text import Text

PIXELS_AT_ONCE = 8 * 128 * 128


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished picture and how to draw it again."""

    prompt_index: int
    prompt: str
    seed: int
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws the config's sample prompts with whatever the UNet has learned so far."""

    unet: Any
    vae: Any
    text: Text
    config: TrainConfig
    scheduler_config: Mapping[str, Any]
    prediction: PredictionType
    resolution: int
    device: str

    @torch.no_grad()
    def draw(self, keep_going: Callable[[], None]) -> Iterator[Sample]:
        """Give the pictures as they are done; `keep_going` is called in every step, may raise."""
        prompts = self.config.sample_prompts
        at_once = max(1, PIXELS_AT_ONCE // self.resolution**2)
        for start in range(0, len(prompts), at_once):
            chosen = range(start, min(start + at_once, len(prompts)))
            seeds = [(self.config.sample_seed + index) % (MAX_SEED + 1) for index in chosen]
            latents = self._denoise([prompts[index] for index in chosen], seeds, keep_going)
            keep_going()
            for index, seed, picture in zip(chosen, seeds, self._decode(latents), strict=True):
                yield Sample(index, prompts[index], seed, picture)

    def _denoise(
        self, prompts: Sequence[str], seeds: Sequence[int], keep_going: Callable[[], None]
    ) -> Tensor:
        """Finished latents (n, c, h, w)."""
        scheduler = self._scheduler()
        guided = self.config.sample_guidance > 1
        negative = [self.config.sample_negative_prompt] * len(prompts)
        text = self.text([*negative, *prompts] if guided else prompts)
        time_ids = self._time_ids(len(text.hidden))
        latents: Tensor = self._noise(seeds) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            keep_going()
            doubled = torch.cat([latents, latents]) if guided else latents
            predicted = predict(self.unet, doubled, timestep.to(self.device), text, time_ids)
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + self.config.sample_guidance * (with_prompt - without)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        return latents

    def _scheduler(self) -> Any:
        """DDIM on the base's own schedule; v-prediction has to begin at the very last timestep
        (Lin et al. 2023, arXiv 2305.08891), hence the trailing spacing."""
        settings = dict(self.scheduler_config) | {"prediction_type": self.prediction.value}
        if self.prediction is PredictionType.V_PREDICTION:
            settings["timestep_spacing"] = "trailing"
        scheduler = DDIMScheduler.from_config(settings, clip_sample=False, thresholding=False)
        scheduler.set_timesteps(self.config.sample_steps)
        return scheduler

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """(n, c, h, w), each picture's from its own seed, so that it is the same in any company."""
        factor = vae_factor(self.vae)
        side = self.resolution // factor
        shape = (self.unet.config.in_channels, side, side)
        noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return torch.stack(noise).to(self.device)

    def _time_ids(self, count: int) -> Tensor:
        side = float(self.resolution)
        row = torch.tensor([side, side, 0.0, 0.0, side, side], device=self.device)
        return row.expand(count, -1)

    def _decode(self, latents: Tensor) -> Iterator[Image.Image]:
        """Pictures one by one: the decoder needs the most memory of all."""
        config = self.vae.config
        shift = float(getattr(config, "shift_factor", None) or 0.0)
        weight = next(self.vae.parameters())
        for latent in latents:
            scaled = latent[None] / config.scaling_factor + shift
            with torch.autocast(weight.device.type, enabled=False):  # SDXL's overflows in fp16
                decoded = self.vae.decode(scaled.to(weight.dtype)).sample[0].float()
            pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
            yield Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def vae_factor(vae: Any) -> int:
    """How many pixels of a side become one latent."""
    if "block_out_channels" in vae.config:
        return int(2 ** (len(vae.config.block_out_channels) - 1))
    return int(2 ** (len(vae.config.decoder_block_out_channels) - 1))


def embeddings_needed(config: TrainConfig) -> list[str]:
    """Every text that the samples will ask for."""
    return [config.sample_negative_prompt, *config.sample_prompts] if config.sample_prompts else []
