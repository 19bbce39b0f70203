"""A base model that stays in memory with adapters in its weights and generates images."""

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
from worker.core.inference.errors import RenderCanceled, RenderError
from worker.core.inference.merge import MergedWeights, Recipe
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.sampling import (
    Conditioning,
    decode_latent,
    generate_latents,
    make_scheduler,
    needs_negative,
    to_image,
)

CACHED_PROMPTS = 64  # 0.3 MiB each for SDXL in fp16
PromptKey = tuple[str, int, tuple[tuple[Recipe, ...], ...]]


@dataclass(frozen=True, eq=False)
class RenderedImage:
    """One image; `truncated_tokens` tokens at the end of the prompts did not fit."""

    image: Image.Image
    seed: int
    truncated_tokens: int


class ResidentPipeline:
    """A loaded base model; adapters change in its weights without reloading it."""

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
        """The base at `path` on `device`; by default fp16 on CUDA, else fp32.

        Messages call the base `name`. Raises BaseModelError.
        """
        if dtype is None:
            dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        return cls(load_base(path, dtype=dtype, device=device), device=device, name=name)

    def set_adapters(self, stack: Sequence[LoadedAdapter]) -> int:
        """Merge exactly these adapters into the weights; returns the number of layers written.

        Their changes add up. Raises AdapterMismatchError without changing any weight.
        """
        return self._merged.apply(stack)

    def render(
        self, config: RenderConfig, *, on_step: Callable[[int, int], bool] = lambda _, __: True
    ) -> list[RenderedImage]:
        """The images of the config; image i is generated from seed + i, alone, whatever the count.

        `on_step(done, total)` is called after every step of every image; when it returns False,
        RenderCanceled is raised. Raises RenderError.
        """
        width, height = self._image_size(config)
        self._check_clip_skip(config.clip_skip)
        total = config.steps * config.count
        try:
            with torch.inference_mode():
                conditioning = self._make_conditioning(config)
                truncated = self._count_truncated(config, conditioning)
                return [
                    RenderedImage(
                        image=self._generate(
                            config,
                            conditioning,
                            (width, height),
                            seed=config.seed + index,
                            on_step=_cancel_on_false(on_step, index * config.steps, total),
                        ),
                        seed=config.seed + index,
                        truncated_tokens=truncated,
                    )
                    for index in range(config.count)
                ]
        except torch.OutOfMemoryError as error:
            raise RenderError(
                f"An image of {width} × {height} does not fit in the device's memory. "
                "Choose a smaller size."
            ) from error

    def _generate(
        self,
        config: RenderConfig,
        conditioning: Conditioning,
        size: tuple[int, int],
        *,
        seed: int,
        on_step: Callable[[int], None],
    ) -> Image.Image:
        latents = generate_latents(
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
        return self._decode_image(latents[0])

    def _decode_image(self, latent: Tensor) -> Image.Image:
        """The image of one latent (channels, height, width)."""
        pixels = decode_latent(self.base.vae, latent)
        if not bool(torch.isfinite(pixels).all()):
            raise RenderError(
                "The image contains invalid numbers (NaN). Use smaller adapter weights or less "
                "guidance."
            )
        return to_image(pixels)

    def _image_size(self, config: RenderConfig) -> tuple[int, int]:
        side, factor = self.base.info.resolution, vae_factor(self.base.vae.config)
        width, height = config.width or side, config.height or side
        if width % factor or height % factor:
            raise RenderError(
                f"The size {width} × {height} is not possible: use multiples of {factor}."
            )
        return width, height

    def _check_clip_skip(self, clip_skip: int) -> None:
        layers = min(encoder.config.num_hidden_layers for encoder in self.base.text_encoders)
        if clip_skip > layers:
            raise RenderError(
                f"CLIP skip is {clip_skip}, but this base has {layers} text layers: lower it."
            )

    def _make_conditioning(self, config: RenderConfig) -> Conditioning:
        skip, guided = config.clip_skip, needs_negative(config.guidance)
        negative = self._encode_negative(config.negative_prompt, skip) if guided else None
        return Conditioning(self._encode_prompt(config.prompt, skip), negative, config.guidance)

    def _encode_negative(self, prompt: str, clip_skip: int) -> PromptEmbeddings:
        encoded = self._encode_prompt(prompt, clip_skip)
        if prompt.strip() or not self.base.info.zero_empty_negative:
            return encoded
        pooled = None if encoded.pooled is None else torch.zeros_like(encoded.pooled)
        return PromptEmbeddings(torch.zeros_like(encoded.hidden), pooled)

    def _encode_prompt(self, prompt: str, clip_skip: int) -> PromptEmbeddings:
        """The embeddings of a prompt with the current text-encoder weights, from a small cache."""
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

    def _count_truncated(self, config: RenderConfig, conditioning: Conditioning) -> int:
        """The number of tokens that did not fit, of the prompts in use."""
        used = [config.prompt, *([config.negative_prompt] if conditioning.negative else [])]
        return max(count_truncated(self.base, prompt) for prompt in used)


def _cancel_on_false(
    on_step: Callable[[int, int], bool], before: int, total: int
) -> Callable[[int], None]:
    """A step callback that counts over all images and raises RenderCanceled on False."""

    def note(done: int) -> None:
        if not on_step(before + done, total):
            raise RenderCanceled

    return note
