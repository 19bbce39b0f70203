"""A base model that stays in memory with adapters in its weights and generates images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from worker.core.bases.inspect import inspect_base, vae_factor
from worker.core.bases.load import LoadedBase, load_base
from worker.core.bases.threads import is_small
from worker.core.families.facts.family_facts import FamilyOptions
from worker.core.families.family import Component
from worker.core.families.network import FamilyError, number_type
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates
from worker.core.inference.batches import (
    Preview,
    WantedImage,
    Watcher,
    concat_conditioning,
    generate_in_batches,
    images_at_once,
    shares_batch,
)
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled, RenderError
from worker.core.inference.merge import MergedWeights, Recipe
from worker.core.inference.preview import approximate_pixels, has_linear_map
from worker.core.inference.prompt_syntax import ParsedPrompt, parse_prompt
from worker.core.inference.rank_form import AdaptersBeside
from worker.core.inference.sampling import (
    Conditioning,
    decode_latent,
    generate_latents,
    image_generators,
    initial_noise,
    needs_negative,
    predict_noise,
    to_image,
)
from worker.core.inference.source_images import SourceLatents, encode_source
from worker.core.inference.weighted_prompts import encode_prompt, find_unread, lengthen
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.memory import is_out_of_memory
from worker.core.torch_dtypes import TORCH_DTYPES
from worker.core.words import RenderPrecision, SamplerName

CACHED_PROMPTS = 64  # 0.3 MiB each for SDXL in fp16
PromptKey = tuple[str, int, tuple[tuple[Recipe, ...], ...]]


@dataclass(frozen=True, eq=False)
class RenderedImage:
    """One image; `truncated` is the end of a prompt that the base could not read, "" if none."""

    image: Image.Image
    seed: int
    truncated: str


class ResidentPipeline:
    """A loaded base model; adapters change in its weights without reloading it."""

    def __init__(
        self, base: LoadedBase, *, device: torch.device | str = "cpu", name: str = "this base"
    ) -> None:
        self.base = base
        self.device = torch.device(device)
        self._name = name
        self._network = network_of(base.info.family)
        self._merged = self._merge_into(base)
        self._samplers: dict[SamplerName, Any] = {}
        self._prompts: OrderedDict[PromptKey, TextStates] = OrderedDict()
        self._should_stop: Callable[[], bool] | None = None
        for module in (base.denoiser, base.vae.encoder, base.vae.decoder, *base.text_encoders):
            for block in _blocks(module):
                block.register_forward_pre_hook(self._raise_if_stopped)

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        *,
        precision: RenderPrecision | None = None,
        name: str = "this base",
    ) -> ResidentPipeline:
        """The base at `path` on `device`; by default as `default_precision` says.

        Messages call the base `name`. Raises BaseModelError, and RenderError if the device has too
        little memory.
        """
        options = inspect_base(path).family.facts.options
        precision = precision or default_precision(device, options)
        denoiser, rest = _number_types(precision, options)
        with _memory_for(f"The base model {name}"):
            base = load_base(path, dtype=rest, denoiser_dtype=denoiser, device=device)
        return cls(base, device=device, name=name)

    @property
    def precision(self) -> RenderPrecision:
        """The number type of the UNet."""
        return next(
            p for p in RenderPrecision if TORCH_DTYPES[p] is number_type(self.base.denoiser)
        )

    @property
    def memory_bytes(self) -> int:
        """The memory of its weights, with the original ones of layers that adapters changed."""
        parts = (self.base.denoiser, self.base.vae, *self.base.text_encoders)
        weights: list[Tensor] = [weight for part in parts for weight in part.parameters()]
        own = sum(weight.numel() * weight.element_size() for weight in weights)
        return own + self._merged.originals_bytes

    def cast_denoiser(self, precision: RenderPrecision) -> None:
        """Change the number type of the UNet; removes all adapters. Raises BaseModelError."""
        self._merged.apply([])
        self.base.cast_denoiser(TORCH_DTYPES[precision])
        self._merged = self._merge_into(self.base)

    @contextmanager
    def stoppable(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Raise RenderCanceled in this block once `should_stop()` is true.

        It is asked between the layers of the networks, and has to be quick.
        """
        self._should_stop = should_stop
        try:
            yield
        finally:
            self._should_stop = None

    def _raise_if_stopped(self, *_: object) -> None:
        if self._should_stop is not None and self._should_stop():
            raise RenderCanceled

    def _merge_into(self, base: LoadedBase) -> MergedWeights:
        return MergedWeights(
            base.adaptable(), base_name=self._name, read_original=self._read_original
        )

    def _read_original(self, key: str) -> Tensor | None:
        """The exact weight of a layer of a UNet in bf16, which holds it rounded."""
        component, _, path = key.partition(".")
        if component != Component.DENOISER or self.precision is not RenderPrecision.BF16:
            return None
        return self.base.read_denoiser_weight(path)

    def set_adapters(self, stack: Sequence[LoadedAdapter]) -> int:
        """Merge exactly these adapters into the weights; returns the number of layers written.

        Their changes add up. Raises AdapterMismatchError without changing any weight, and
        RenderError if the device has too little memory; the next call writes what is missing.
        """
        with _memory_for("An adapter"):
            return self._merged.apply(stack)

    def render(
        self,
        config: RenderConfig,
        *,
        source: Image.Image | None = None,
        on_step: Callable[[int, int], bool] = lambda _, __: True,
        on_preview: Preview | None = None,
    ) -> list[RenderedImage]:
        """The images of the config; image i is generated from seed + i, whatever the count.

        Images are generated together as `images_at_once` says. An image is the same alone and among
        others but for rounding: within 1 of 255 levels in fp32.

        `source`: the image that all of them start from, of any size; the config then has a
        strength.

        `on_step(done, total)` counts the steps of all images; it is called after each step of a
        batch, and when it returns False, RenderCanceled is raised. `on_preview(first, latents)` is
        called after it with the clean latents (n, channels, height, width) which the step predicts
        for the images `first`, `first` + 1 … of the request; `preview_image` makes an image of
        each. Raises RenderError.
        """
        watcher = Watcher(on_step, on_preview, total=config.steps_run * config.count)
        with torch.inference_mode():
            wanted, start = self._want(config), self._encode_source(config, source)
            return self._draw(wanted, config, watcher, start)

    def render_weights(
        self,
        config: RenderConfig,
        stacks: Sequence[Sequence[LoadedAdapter]],
        *,
        source: Image.Image | None = None,
        on_step: Callable[[int, int], bool] = lambda _, __: True,
        on_preview: Preview | None = None,
    ) -> list[RenderedImage]:
        """The image of the config with each of these stacks of adapters: a strip of weights.

        All are generated from the seed of the config, whose count is not used. They share batches
        where that pays, with the adapters beside the UNet's layers; else they are generated one
        after another with merged weights. Both give the same image but for rounding. Afterwards no
        certain stack is merged: call `set_adapters` before another method.

        `source` and the callbacks are those of `render`, for as many images as stacks. Raises
        AdapterMismatchError before the first image, and RenderError.
        """
        one = config.model_copy(update={"count": 1})
        watcher = Watcher(on_step, on_preview, total=config.steps_run * len(stacks))
        beside = AdaptersBeside(self._merged, stacks)
        with torch.inference_mode():
            beside.require_fit()
            start = self._encode_source(one, source)
            if shares_batch(len(stacks), self.device, self.image_size(one)) and beside.pays():
                return self._draw(self._want_beside(one, beside), one, watcher, start, beside)
            drawn = []
            for index, stack in enumerate(stacks):
                self.set_adapters(stack)
                drawn += self._draw(self._want(one), one, replace(watcher, first=index), start)
            return drawn

    def predict_once(self, config: RenderConfig) -> Tensor:
        """The prediction in the middle of an image of this config, fp32: one call of the UNet."""
        width, height = self.image_size(config)
        denoiser, generators = self.base.denoiser, image_generators([config.seed])
        noise = initial_noise(denoiser, self.base.vae, generators, width=width, height=height)
        with torch.inference_mode():
            return predict_noise(
                self._network,
                denoiser,
                self._make_conditioning(config),
                noise.to(self.device),
                self._network.middle_level(self._sampler(config.sampler)),
                width=width,
                height=height,
            )

    def _want(self, config: RenderConfig) -> list[WantedImage]:
        """The images of a config, with the text encoders as they are now."""
        self._check_clip_skip(config.clip_skip)
        conditioning = self._make_conditioning(config)
        truncated = self._find_truncated(config, conditioning)
        seeds = range(config.seed, config.seed + config.count)
        return [WantedImage(conditioning, seed, truncated) for seed in seeds]

    def _want_beside(self, config: RenderConfig, beside: AdaptersBeside) -> list[WantedImage]:
        """The image of a config for each stack, with this stack in the text encoders."""
        wanted = []
        for index in range(len(beside.stacks)):
            beside.merge_into_text_encoders(index)
            wanted += self._want(config)
        return wanted

    def _draw(
        self,
        wanted: Sequence[WantedImage],
        config: RenderConfig,
        watcher: Watcher,
        start: SourceLatents | None,
        beside: AdaptersBeside | None = None,
    ) -> list[RenderedImage]:
        """The images, generated in batches; with `beside`, image i gets the adapters of stack i."""
        width, height = size = self.image_size(config)
        scheduler = self._sampler(config.sampler)

        def generate(first: int, part: Sequence[WantedImage]) -> Tensor:
            callbacks = watcher.of_batch(first, part, steps=config.steps_run)
            with beside.on_images(first, part) if beside else nullcontext():
                return generate_latents(
                    self._network,
                    self.base.denoiser,
                    self.base.vae,
                    scheduler,
                    concat_conditioning([image.conditioning for image in part]),
                    seeds=[image.seed for image in part],
                    width=width,
                    height=height,
                    steps=config.steps,
                    device=self.device,
                    on_step=callbacks.on_step,
                    on_preview=callbacks.on_preview,
                    source=start,
                )

        with _enough_memory(size):
            latents = generate_in_batches(wanted, generate, images_at_once(self.device, size))
            return [
                RenderedImage(self._decode_image(latent), image.seed, image.truncated)
                for image, latent in zip(wanted, latents, strict=True)
            ]

    def _encode_source(
        self, config: RenderConfig, source: Image.Image | None
    ) -> SourceLatents | None:
        """The latents of the image to start from, if there is one. Raises RenderError."""
        if config.strength is None:
            return None
        if source is None:
            raise RenderError("The image to start from is missing. Choose it again.")
        width, height = size = self.image_size(config)
        with _enough_memory(size):
            return encode_source(
                self.base.vae, source, width=width, height=height, strength=config.strength
            )

    def _sampler(self, name: SamplerName) -> Any:
        """The scheduler of a sampler. Raises RenderError."""
        if name not in self._samplers:
            try:
                self._samplers[name] = self._network.sampler(
                    name, self.base.scheduler_config, prediction=self.base.info.prediction_type
                )
            except FamilyError as error:
                raise RenderError(str(error)) from error
        return self._samplers[name]

    def preview_image(self, latent: Tensor) -> Image.Image:
        """A small image of one clean latent (channels, height, width), made in milliseconds.

        A small base decodes it: the image has its full size. A large base shows one pixel per
        latent, an eighth of the side, by the linear map of `preview.py`. It never fails: invalid
        numbers are black.
        """
        with torch.inference_mode():
            linear = self.base.info.family.facts.linear_map
            if is_small(self.base.info.parameters) or not has_linear_map(latent, linear):
                return to_image(decode_latent(self.base.vae, latent))
            return to_image(approximate_pixels(latent, linear))

    def _decode_image(self, latent: Tensor) -> Image.Image:
        """The image of one latent (channels, height, width)."""
        pixels = decode_latent(self.base.vae, latent)
        if not bool(torch.isfinite(pixels).all()):
            raise RenderError(
                "The image contains invalid numbers (NaN). Use smaller adapter weights or less "
                "guidance."
            )
        return to_image(pixels)

    def image_size(self, config: RenderConfig) -> tuple[int, int]:
        """(width, height) in pixels: the config's, else the native size. Raises RenderError."""
        side, step = self.base.info.resolution, self.base.info.family.facts.options.side_step
        step = max(step, vae_factor(self.base.vae.config))
        width, height = config.width or side, config.height or side
        if width % step or height % step:
            raise RenderError(
                f"The size {width} × {height} is not possible: use multiples of {step}."
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
        prompt = self._encode_prompt(config.prompt, skip)
        if negative is not None and negative.hidden.shape != prompt.hidden.shape:
            tokens = max(negative.hidden.shape[1], prompt.hidden.shape[1])
            prompt = lengthen(prompt, self._encode_prompt("", skip), tokens)
            negative = lengthen(negative, self._encode_negative("", skip), tokens)
        return Conditioning(prompt, negative, config.guidance)

    def _encode_negative(self, prompt: str, clip_skip: int) -> TextStates:
        encoded = self._encode_prompt(prompt, clip_skip)
        if prompt.strip() or not self.base.info.zero_empty_negative:
            return encoded
        return encoded.map(torch.zeros_like)

    def _encode_prompt(self, prompt: str, clip_skip: int) -> TextStates:
        """The embeddings of a prompt with the current text-encoder weights, from a small cache."""
        changes = [self._merged.recipes(name) for name in ("text_encoder", "text_encoder_2")]
        key = (prompt, clip_skip, tuple(changes))
        if key not in self._prompts:
            self._prompts[key] = encode_prompt(
                self.base, self._parse(prompt), device=self.device, clip_skip=clip_skip
            )
            if len(self._prompts) > CACHED_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _parse(self, prompt: str) -> ParsedPrompt:
        options = self.base.info.family.facts.options
        return parse_prompt(prompt, has_weights=options.has_prompt_weights)

    def _find_truncated(self, config: RenderConfig, conditioning: Conditioning) -> str:
        """The end that did not fit of the prompt, else of the negative prompt if it is in use."""
        used = [config.prompt, *([config.negative_prompt] if conditioning.negative else [])]
        ends = (find_unread(self.base, self._parse(prompt)) for prompt in used)
        return next(filter(None, ends), "")


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that call layers themselves, such as attentions and residual blocks.

    There are about a hundred of them in a UNet, so that a hook on each costs nothing.
    """
    for module in network.modules():
        if any(next(child.children(), None) is None for child in module.children()):
            yield module


def weight_bytes(
    parameters: Mapping[str, int], precision: RenderPrecision, options: FamilyOptions
) -> int:
    """The memory that the weights of a base take, by the number of parameters per component."""
    denoiser, rest = _number_types(precision, options)
    sizes = {"unet": denoiser.itemsize, "vae": torch.float32.itemsize}
    return sum(count * sizes.get(name, rest.itemsize) for name, count in parameters.items())


def _number_types(
    precision: RenderPrecision, options: FamilyOptions
) -> tuple[torch.dtype, torch.dtype]:
    """Those of the denoiser and of the text encoders; the autoencoder is always fp32.

    Text encoders run once for a prompt: those of CLIP, which are small, are not rounded to bf16.
    """
    denoiser = TORCH_DTYPES[precision]
    keeps = options.gpu_precision is RenderPrecision.FP16
    is_rounded = precision is RenderPrecision.BF16 and keeps
    return denoiser, torch.float32 if is_rounded else denoiser


def default_precision(device: torch.device | str, options: FamilyOptions) -> RenderPrecision:
    """The precision on a device unless another one was measured to be better."""
    is_cuda = torch.device(device).type == "cuda"
    return options.gpu_precision if is_cuda else RenderPrecision.FP32


def _enough_memory(size: tuple[int, int]) -> AbstractContextManager[None]:
    """A block that raises RenderError when an image of this size does not fit in memory."""
    width, height = size
    return _memory_for(f"An image of {width} × {height}", "Choose a smaller size, or try again")


@contextmanager
def _memory_for(what: str, advice: str = "Try again") -> Iterator[None]:
    """Raise RenderError where this does not fit in memory, which a training run may have filled."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # those of a CPU are plain RuntimeErrors
        if not is_out_of_memory(error):
            raise
        raise RenderError(
            f"{what} does not fit in the device's memory. {advice} when no training run uses it."
        ) from error
