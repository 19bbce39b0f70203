"""Generates samples during training, with the same sampler as the playground.

All randomness comes from the sample seed, none from the training's generators.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from worker.core.families.network import Network
from worker.core.inference.sampling import (
    Conditioning,
    decode_latent,
    generate_latents,
    needs_negative,
    to_image,
)
from worker.core.training.config import MAX_SEED, TrainConfig
from worker.core.training.data.text import CaptionEncoder
from worker.core.training.prompts import parse_prompt

PIXELS_AT_ONCE = 8 * 128 * 128


@dataclass(frozen=True, slots=True)
class SampleImage:
    """One sample image; `prompt` is the line as it was written."""

    prompt_index: int
    prompt: str
    seed: int
    image: Image.Image


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """The settings that images of one batch share; sides in pixels."""

    width: int
    height: int
    steps: int
    guidance: float
    weight: float


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One image to generate: the index of its prompt, its texts, seed and settings."""

    prompt_index: int
    text: str
    negative: str
    seed: int
    settings: SampleSettings


def sample_requests(config: TrainConfig, resolution: int) -> list[SampleRequest]:
    """The config's sample prompts with all open options filled in."""
    requests = []
    for index, line in enumerate(config.sample_prompts):
        prompt = parse_prompt(line)
        seed = prompt.seed
        if seed is None:
            seed = (config.sample_seed + index) % (MAX_SEED + 1)
        negative = prompt.negative
        if negative is None:
            negative = config.sample_negative_prompt.strip()
        settings = SampleSettings(
            width=prompt.width or resolution,
            height=prompt.height or resolution,
            steps=prompt.steps or config.sample_steps,
            guidance=config.sample_guidance if prompt.guidance is None else prompt.guidance,
            weight=prompt.weight,
        )
        requests.append(SampleRequest(index, prompt.text, negative, seed, settings))
    return requests


@dataclass(frozen=True, slots=True)
class Sampler:
    """Generates the config's sample prompts with the current adapter.

    `scaled(weight)` sets the adapter's strength while the context lasts.
    """

    network: Network
    denoiser: Any
    vae: Any
    text: CaptionEncoder
    scaled: Callable[[float], AbstractContextManager[None]]
    config: TrainConfig
    scheduler_config: Mapping[str, Any]
    prediction: str
    resolution: int
    device: str

    def generate(self, check_stop: Callable[[], None]) -> Iterator[SampleImage]:
        """Yield the images of the config as they are finished; see `draw`."""
        for one, image in self.draw(sample_requests(self.config, self.resolution), check_stop):
            line = self.config.sample_prompts[one.prompt_index]
            yield SampleImage(one.prompt_index, line, one.seed, image)

    @torch.no_grad()
    def draw(
        self, requests: Sequence[SampleRequest], check_stop: Callable[[], None]
    ) -> Iterator[tuple[SampleRequest, Image.Image]]:
        """Yield the images as they are finished, in order of their settings; `check_stop` is called
        in every step and may raise."""
        groups: dict[SampleSettings, list[SampleRequest]] = {}
        for request in requests:
            groups.setdefault(request.settings, []).append(request)
        for settings, group in groups.items():
            at_once = max(1, PIXELS_AT_ONCE // (settings.width * settings.height))
            for start in range(0, len(group), at_once):
                yield from self._generate_images(
                    settings, group[start : start + at_once], check_stop
                )

    def _generate_images(
        self,
        settings: SampleSettings,
        group: Sequence[SampleRequest],
        check_stop: Callable[[], None],
    ) -> Iterator[tuple[SampleRequest, Image.Image]]:
        if settings.weight == 1:
            latents = self._generate_latents(settings, group, check_stop)
        else:
            with self.scaled(settings.weight):
                latents = self._generate_latents(settings, group, check_stop)
        for one, latent in zip(group, latents, strict=True):
            yield one, to_image(decode_latent(self.vae, latent))

    def _generate_latents(
        self,
        settings: SampleSettings,
        group: Sequence[SampleRequest],
        check_stop: Callable[[], None],
    ) -> Tensor:
        """The generated latents (n, c, h, w)."""
        negative = None
        if needs_negative(settings.guidance):
            negative = self.text([one.negative for one in group])
        prompt = self.text([one.text for one in group])
        scheduler = self.network.sampler(None, self.scheduler_config, prediction=self.prediction)
        check_stop()
        return generate_latents(
            self.network,
            self.denoiser,
            self.vae,
            scheduler,
            Conditioning(prompt, negative, settings.guidance),
            seeds=[one.seed for one in group],
            width=settings.width,
            height=settings.height,
            steps=settings.steps,
            device=self.device,
            on_step=lambda _: check_stop(),
        )


def sample_texts(config: TrainConfig) -> list[str]:
    """Every text that the samples need."""
    return [text for one in sample_requests(config, 0) for text in (one.negative, one.text)]
