"""Pictures drawn on the way, to watch the adapter learn.

DDIM (Song et al. 2021, arXiv 2010.02502) with classifier-free guidance (Ho & Salimans 2022, arXiv
2207.12598). All randomness comes from the sample seed, none from the training's generators.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from worker.core.training.config import MAX_SEED, PredictionType, TrainConfig
from worker.core.training.data.text import Text
from worker.core.training.denoise import predict
from worker.core.training.prompts import parse

PIXELS_AT_ONCE = 8 * 128 * 128


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished picture and how to draw it again; `prompt` is the line as it was written."""

    prompt_index: int
    prompt: str
    seed: int
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Manner:
    """How pictures are drawn that can be drawn together; sides in pixels."""

    width: int
    height: int
    steps: int
    guidance: float
    weight: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """One picture to draw: which prompt it belongs to, what is said of it, and how."""

    prompt_index: int
    text: str
    negative: str
    seed: int
    manner: Manner


def wanted(config: TrainConfig, resolution: int) -> list[Wanted]:
    """The config's sample prompts, with what they leave open as the config says."""
    pictures = []
    for index, line in enumerate(config.sample_prompts):
        prompt = parse(line)
        seed = prompt.seed
        if seed is None:
            seed = (config.sample_seed + index) % (MAX_SEED + 1)
        negative = prompt.negative
        if negative is None:
            negative = config.sample_negative_prompt
        manner = Manner(
            width=prompt.width or resolution,
            height=prompt.height or resolution,
            steps=prompt.steps or config.sample_steps,
            guidance=config.sample_guidance if prompt.guidance is None else prompt.guidance,
            weight=prompt.weight,
        )
        pictures.append(Wanted(index, prompt.text, negative, seed, manner))
    return pictures


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws the config's sample prompts with whatever the UNet has learned so far.

    `scaled(weight)` is the adapter at another strength, for as long as the context lasts.
    """

    unet: Any
    vae: Any
    text: Text
    scaled: Callable[[float], AbstractContextManager[None]]
    config: TrainConfig
    scheduler_config: Mapping[str, Any]
    prediction: PredictionType
    resolution: int
    device: str

    @torch.no_grad()
    def draw(self, keep_going: Callable[[], None]) -> Iterator[Sample]:
        """Give the pictures as they are done; `keep_going` is called in every step, may raise."""
        groups: dict[Manner, list[Wanted]] = {}
        for picture in wanted(self.config, self.resolution):
            groups.setdefault(picture.manner, []).append(picture)
        for manner, group in groups.items():
            at_once = max(1, PIXELS_AT_ONCE // (manner.width * manner.height))
            for start in range(0, len(group), at_once):
                yield from self._draw(manner, group[start : start + at_once], keep_going)

    def _draw(
        self, manner: Manner, group: Sequence[Wanted], keep_going: Callable[[], None]
    ) -> Iterator[Sample]:
        if manner.weight == 1:
            latents = self._denoise(manner, group, keep_going)
        else:
            with self.scaled(manner.weight):
                latents = self._denoise(manner, group, keep_going)
        keep_going()
        for one, picture in zip(group, self._decode(latents), strict=True):
            line = self.config.sample_prompts[one.prompt_index]
            yield Sample(one.prompt_index, line, one.seed, picture)

    def _denoise(
        self, manner: Manner, group: Sequence[Wanted], keep_going: Callable[[], None]
    ) -> Tensor:
        """Finished latents (n, c, h, w)."""
        scheduler = self._scheduler(manner.steps)
        guided = manner.guidance > 1
        prompts, negatives = [one.text for one in group], [one.negative for one in group]
        text = self.text([*negatives, *prompts] if guided else prompts)
        time_ids = self._time_ids(manner, len(text.hidden))
        latents: Tensor = self._noise(manner, group) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            keep_going()
            doubled = torch.cat([latents, latents]) if guided else latents
            predicted = predict(self.unet, doubled, timestep.to(self.device), text, time_ids)
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + manner.guidance * (with_prompt - without)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        return latents

    def _scheduler(self, steps: int) -> Any:
        """DDIM on the base's own schedule; v-prediction has to begin at the very last timestep
        (Lin et al. 2023, arXiv 2305.08891), hence the trailing spacing."""
        settings = dict(self.scheduler_config) | {"prediction_type": self.prediction.value}
        if self.prediction is PredictionType.V_PREDICTION:
            settings["timestep_spacing"] = "trailing"
        scheduler = DDIMScheduler.from_config(settings, clip_sample=False, thresholding=False)
        scheduler.set_timesteps(steps)
        return scheduler

    def _noise(self, manner: Manner, group: Sequence[Wanted]) -> Tensor:
        """(n, c, h, w), each picture's from its own seed, so that it is the same in any company."""
        factor = vae_factor(self.vae)
        shape = (self.unet.config.in_channels, manner.height // factor, manner.width // factor)
        noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(one.seed)) for one in group
        ]
        return torch.stack(noise).to(self.device)

    def _time_ids(self, manner: Manner, count: int) -> Tensor:
        sides = [manner.height, manner.width]
        row = torch.tensor([*sides, 0.0, 0.0, *sides], device=self.device)
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
    return [text for one in wanted(config, 0) for text in (one.negative, one.text)]
