"""All that happens between a loaded base and the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.core.bases.family import BaseFamily
from worker.core.bases.load import LoadedBase
from worker.core.training.adapter.lora import Lora, inject, layers_of
from worker.core.training.attention import speed_up
from worker.core.training.config import Precision, PredictionType, TrainConfig
from worker.core.training.data.batches import Batches
from worker.core.training.data.held_out import Questions, split
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket, encode_images
from worker.core.training.data.text import FrozenText, LiveText, RememberedText, Text
from worker.core.training.errors import UnsupportedError
from worker.core.training.learner import Learner, Model
from worker.core.training.loss import NoiseSchedule
from worker.core.training.precision import cast_frozen, convolution_probe, resolve_precision
from worker.core.training.sample import Sampler, embeddings_needed

LORA_SEED_SHIFT = 0x10_4A


@dataclass(frozen=True, slots=True)
class Encoded:
    """The pictures of a run that are trained on, and those held out, in their buckets."""

    images: Sequence[TrainingImage]
    buckets: Sequence[EncodedBucket]
    held_out: Sequence[TrainingImage]
    held_out_buckets: Sequence[EncodedBucket]

    @property
    def captions(self) -> list[str]:
        """Of all pictures."""
        return [image.caption for image in (*self.images, *self.held_out)]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of a training, ready for its first step."""

    lora: Lora
    learner: Learner
    batches: Batches
    questions: Questions | None
    sampler: Sampler
    precision: Precision


def encode_pictures(
    base: LoadedBase,
    images: Sequence[TrainingImage],
    config: TrainConfig,
    *,
    cache: Path | None,
    keep_going: Callable[[], None],
    device: str = "cpu",
) -> Encoded:
    """Give the latents of all pictures, then drop the VAE's encoder for good.

    The VAE stays on the device: its decoder will draw the samples there.
    """
    base.vae.to(device)
    trained, held_out = split(images, config.validation_share, seed=config.seed)

    def encoded(chosen: Sequence[TrainingImage], *, flip: bool) -> list[EncodedBucket]:
        return encode_images(
            chosen,
            base.vae,
            resolution=resolution_of(config, base),
            flip=flip,
            folder=cache,
            squares=not config.aspect_buckets,
            keep_going=keep_going,
        )

    result = Encoded(
        trained,
        encoded(trained, flip=config.flip),
        held_out,
        encoded(held_out, flip=False),
    )
    base.vae.encoder = None
    if hasattr(base.vae, "quant_conv"):
        base.vae.quant_conv = None
    return result


def prepare(
    base: LoadedBase,
    encoded: Encoded,
    config: TrainConfig,
    *,
    device: str,
    precision: Precision,
    cache: Path | None = None,
) -> Prepared:
    """Put the adapter into the base and everything else around it; consumes the base.

    Raises UnsupportedError when what would be trained could not be kept.
    """
    prediction = prediction_of(config, base)
    lora = add_adapter(base, config)
    text = _text(base, encoded.captions, config, device=device, cache=cache)
    precision = choose_precision(base, encoded.buckets[0], config, precision, device=device)
    settle(base, precision, device=device)
    if config.compile:
        base.unet.compile_repeated_blocks(fullgraph=False)
    noise = schedule_of(config, base)
    schedule = NoiseSchedule.of(noise, device=device)
    model = Model(base.unet, text, schedule, prediction, precision, device)
    sampler = Sampler(
        unet=base.unet,
        vae=base.vae,
        text=text,
        scaled=lora.scaled,
        config=config,
        scheduler_config=noise,
        prediction=prediction,
        resolution=resolution_of(config, base),
        device=device,
    )
    steps = len(schedule)
    questions = None
    if encoded.held_out:
        questions = Questions(
            encoded.held_out_buckets,
            encoded.held_out,
            timesteps=steps,
            batch_size=config.batch_size,
            seed=config.seed,
            masked_as=config,
        )
    batches = Batches(encoded.buckets, encoded.images, config, timesteps=steps)
    learner = Learner(model, lora, config)
    return Prepared(lora, learner, batches, questions, sampler, precision)


def settle(base: LoadedBase, precision: Precision, *, device: str) -> None:
    """Bring the parts of a base into the form that steps are taken in, on the device.

    They are cast before they are moved: an SDXL UNet takes 10 GB in fp32 and half in bf16.
    """
    for part in (base.unet, *base.text_encoders):
        cast_frozen(part, precision)
        part.to(device)
    if device.startswith("cpu"):
        speed_up(base.unet)


def check_supported(config: TrainConfig, base: LoadedBase, *, device: str) -> None:
    """Raise UnsupportedError for what this base or device cannot do; no picture is needed."""
    layers_of(base.unet, base.text_encoders, config, family=base.info.family)
    if config.compile and not device.startswith("cuda"):
        raise UnsupportedError(
            "Only for an NVIDIA GPU can a UNet be compiled: switch “Compile” off."
        )
    if config.clip_skip > 1 and base.info.family is BaseFamily.SDXL:
        raise UnsupportedError(
            "SDXL always reads the layer before the last of its text encoders: set CLIP skip to 1."
        )
    ends_in_noise = schedule_of(config, base).get("rescale_betas_zero_snr", False)
    if ends_in_noise and prediction_of(config, base) is PredictionType.EPSILON:
        raise UnsupportedError(
            "Zero terminal SNR is only for a base that predicts v: of pure noise, what it was made "
            "of cannot be told by predicting the noise. Switch “Zero terminal SNR” off, or set "
            "“Prediction” to v if this base was trained like that."
        )
    layers = min(
        (encoder.config.num_hidden_layers for encoder in base.text_encoders),
        default=config.clip_skip,
    )
    if config.clip_skip > layers:
        raise UnsupportedError(
            f"The text encoder of this base has {layers} layers; CLIP skip is {config.clip_skip}."
        )


def schedule_of(config: TrainConfig, base: LoadedBase) -> dict[str, Any]:
    """The base's noise schedule, ended in pure noise where the config asks for it."""
    forced = {"rescale_betas_zero_snr": True} if config.zero_terminal_snr else {}
    return dict(base.scheduler_config) | forced


def add_adapter(base: LoadedBase, config: TrainConfig) -> Lora:
    """Put a fresh adapter into the base's UNet and, if it trains, its text encoders, in fp32."""
    generator = torch.Generator().manual_seed(config.seed ^ LORA_SEED_SHIFT)
    lora = inject(
        base.unet, base.text_encoders, config, generator=generator, family=base.info.family
    )
    if config.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    return lora


def choose_precision(
    base: LoadedBase,
    bucket: EncodedBucket,
    config: TrainConfig,
    precision: Precision,
    *,
    device: str,
) -> Precision:
    """Resolve `auto` with a convolution of the UNet's own width and the batch's own size."""
    shape = torch.Size([config.batch_size, *bucket.mean.shape[2:]])
    probe = convolution_probe(shape, base.unet.config.block_out_channels[0])
    return resolve_precision(precision, device=device, probe=probe)


def resolution_of(config: TrainConfig, base: LoadedBase) -> int:
    """The trained side in pixels: the config's, else the base's own."""
    return config.resolution or base.info.resolution


def prediction_of(config: TrainConfig, base: LoadedBase) -> PredictionType:
    """What the UNet predicts: as the config says, else as the base does."""
    return config.prediction_type or PredictionType(base.info.prediction_type)


def base_parameters(base: LoadedBase) -> int:
    """How many numbers full fine-tuning would change: the UNet's and the text encoders'."""
    return sum(count for name, count in base.info.parameters.items() if name != "vae")


def _text(
    base: LoadedBase,
    captions: Sequence[str],
    config: TrainConfig,
    *,
    device: str,
    cache: Path | None,
) -> Text:
    for encoder in base.text_encoders:  # here: the last would outlive the loop in `prepare`
        encoder.to(device)
    skip = config.clip_skip
    if config.train_text_encoder:
        return LiveText(base, device=device, clip_skip=skip)
    if config.shuffle_tags:
        return RememberedText(base, device=device, clip_skip=skip)
    needed = ["", *captions, *embeddings_needed(config)]
    known = FrozenText(base, needed, device=device, clip_skip=skip, folder=cache)
    base.text_encoders.clear()
    return known
