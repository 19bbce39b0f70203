"""A base model that stays in memory, with adapters in its weights, and draws pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from worker.core.bases.inspect import vae_factor
from worker.core.bases.load import LoadedBase, load_base
from worker.core.bases.text import PromptEmbeddings, count_truncated, encode_prompts
from worker.core.inference.config import RenderConfig
from worker.core.inference.merge import MergedWeights, Recipe
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.sampling import (
    Conditioning,
    decode_latent,
    draw_latents,
    make_scheduler,
    needs_negative,
    to_image,
)

CACHED_PROMPTS = 64  # 0.3 MiB each for SDXL in fp16
PromptKey = tuple[str, int, tuple[tuple[Recipe, ...], ...]]


class RenderCanceled(Exception):
    """Somebody asked to stop between two steps."""


class RenderError(Exception):
    """A picture that cannot be drawn; the message is a sentence for people."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """One picture; `truncated_tokens` at the end of the prompts were too many for the base."""

    image: Image.Image
    seed: int
    truncated_tokens: int


class ResidentPipeline:
    """One loaded base; adapters come and go in its weights without loading it again."""

    def __init__(
        self, base: LoadedBase, *, device: torch.device | str = "cpu", name: str = "this base"
    ) -> None:
        self.base = base
        self.device = torch.device(device)
        self._merged = MergedWeights(base.adaptable(), base_name=name)
        self._scheduler = make_scheduler(
            base.scheduler_config, prediction_type=base.info.prediction_type
        )
        self._prompts: OrderedDict[PromptKey, PromptEmbeddings] = OrderedDict()

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype | None = None,
        name: str = "this base",
    ) -> ResidentPipeline:
        """The base at `path`, resident on `device`: fp16 on a CUDA device unless said, else fp32.

        `name` is what messages call the base. Raises BaseModelError.
        """
        if dtype is None:
            dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        return cls(load_base(path, dtype=dtype, device=device), device=device, name=name)

    def set_adapters(self, stack: Sequence[LoadedAdapter]) -> int:
        """Put exactly these adapters into the weights; how many layers were written.

        Their changes add up. Raises AdapterMismatchError, with all weights as they were.
        """
        return self._merged.apply(stack)

    def render(
        self, config: RenderConfig, *, on_step: Callable[[int, int], bool] = lambda _, __: True
    ) -> list[Rendered]:
        """The pictures asked for; picture i is drawn from seed + i, alone, whatever the count.

        `on_step(done, total)` is asked after every step of every picture; False raises
        RenderCanceled. Raises RenderError.
        """
        width, height = self._size(config)
        self._check_clip_skip(config.clip_skip)
        total = config.steps * config.count
        try:
            with torch.inference_mode():
                conditioning = self._conditioning(config)
                truncated = self._truncated(config, conditioning)
                return [
                    Rendered(
                        image=self._draw(
                            config,
                            conditioning,
                            (width, height),
                            seed=config.seed + index,
                            on_step=_canceling(on_step, index * config.steps, total),
                        ),
                        seed=config.seed + index,
                        truncated_tokens=truncated,
                    )
                    for index in range(config.count)
                ]
        except torch.OutOfMemoryError as error:
            raise RenderError(
                f"A picture of {width} × {height} does not fit in the device's memory; "
                "choose a smaller one."
            ) from error

    def _draw(
        self,
        config: RenderConfig,
        conditioning: Conditioning,
        size: tuple[int, int],
        *,
        seed: int,
        on_step: Callable[[int], None],
    ) -> Image.Image:
        latents = draw_latents(
            self.base.unet,
            self.base.vae,
            self._scheduler,
            conditioning,
            seeds=[seed],
            width=size[0],
            height=size[1],
            steps=config.steps,
            device=self.device,
            on_step=on_step,
        )
        return self._decode(latents[0])

    def _decode(self, latent: Tensor) -> Image.Image:
        """The picture of one latent (channels, height, width)."""
        pixels = decode_latent(self.base.vae, latent)
        if not bool(torch.isfinite(pixels).all()):
            raise RenderError(
                "The picture came out as no valid numbers; use smaller adapter weights or "
                "less guidance."
            )
        return to_image(pixels)

    def _size(self, config: RenderConfig) -> tuple[int, int]:
        side, factor = self.base.info.resolution, vae_factor(self.base.vae.config)
        width, height = config.width or side, config.height or side
        if width % factor or height % factor:
            raise RenderError(
                f"This base draws sides that are multiples of {factor}; {width} × {height} is not."
            )
        return width, height

    def _check_clip_skip(self, clip_skip: int) -> None:
        layers = min(encoder.config.num_hidden_layers for encoder in self.base.text_encoders)
        if clip_skip > layers:
            raise RenderError(
                f"The text encoder of this base has {layers} layers; CLIP skip is {clip_skip}."
            )

    def _conditioning(self, config: RenderConfig) -> Conditioning:
        skip, guided = config.clip_skip, needs_negative(config.guidance)
        negative = self._negative(config.negative_prompt, skip) if guided else None
        return Conditioning(self._encode(config.prompt, skip), negative, config.guidance)

    def _negative(self, prompt: str, clip_skip: int) -> PromptEmbeddings:
        encoded = self._encode(prompt, clip_skip)
        if prompt.strip() or not self.base.info.zero_empty_negative:
            return encoded
        pooled = None if encoded.pooled is None else torch.zeros_like(encoded.pooled)
        return PromptEmbeddings(torch.zeros_like(encoded.hidden), pooled)

    def _encode(self, prompt: str, clip_skip: int) -> PromptEmbeddings:
        """The embeddings of a prompt under the text-encoder weights of now, from a small cache."""
        changes = [self._merged.recipes(name) for name in ("text_encoder", "text_encoder_2")]
        key = (prompt, clip_skip, tuple(changes))
        if key not in self._prompts:
            self._prompts[key] = encode_prompts(
                self.base, [prompt], device=self.device, clip_skip=clip_skip
            )
            if len(self._prompts) > CACHED_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _truncated(self, config: RenderConfig, conditioning: Conditioning) -> int:
        """How many tokens of the prompts in use the base could not read."""
        used = [config.prompt, *([config.negative_prompt] if conditioning.negative else [])]
        return max(count_truncated(self.base, prompt) for prompt in used)


def _canceling(
    on_step: Callable[[int, int], bool], before: int, total: int
) -> Callable[[int], None]:
    """Calls `on_step` with the steps of all pictures so far; raises RenderCanceled at its False."""

    def note(done: int) -> None:
        if not on_step(before + done, total):
            raise RenderCanceled

    return note
