"""Pictures drawn on the way, to watch the adapter learn, as the playground draws them later.

All randomness comes from the sample seed, none from the training's generators.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from worker.core.sampling import (
    Conditioning,
    decode_latent,
    draw_latents,
    make_scheduler,
    needs_negative,
    to_image,
)
from worker.core.training.config import MAX_SEED, PredictionType, TrainConfig
from worker.core.training.data.text import Text
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
            negative = config.sample_negative_prompt.strip()
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
            latents = self._draw_latents(manner, group, keep_going)
        else:
            with self.scaled(manner.weight):
                latents = self._draw_latents(manner, group, keep_going)
        for one, latent in zip(group, latents, strict=True):
            line = self.config.sample_prompts[one.prompt_index]
            picture = to_image(decode_latent(self.vae, latent))
            yield Sample(one.prompt_index, line, one.seed, picture)

    def _draw_latents(
        self, manner: Manner, group: Sequence[Wanted], keep_going: Callable[[], None]
    ) -> Tensor:
        """Finished latents (n, c, h, w)."""
        negative = None
        if needs_negative(manner.guidance):
            negative = self.text([one.negative for one in group])
        prompt = self.text([one.text for one in group])
        scheduler = make_scheduler(self.scheduler_config, prediction_type=self.prediction.value)
        keep_going()
        return draw_latents(
            self.unet,
            self.vae,
            scheduler,
            Conditioning(prompt, negative, manner.guidance),
            seeds=[one.seed for one in group],
            width=manner.width,
            height=manner.height,
            steps=manner.steps,
            device=self.device,
            on_step=lambda _: keep_going(),
        )


def embeddings_needed(config: TrainConfig) -> list[str]:
    """Every text that the samples will ask for."""
    return [text for one in wanted(config, 0) for text in (one.negative, one.text)]
