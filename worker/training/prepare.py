"""All that happens between a loaded base and the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.bases.load import LoadedBase
from worker.training.batches import Batches
from worker.training.cache import EncodedBucket, encode_images
from worker.training.config import Precision, PredictionType, TrainConfig
from worker.training.data import TrainingImage
from worker.training.learner import Learner, Model
from worker.training.lora import Lora, inject
from worker.training.loss import NoiseSchedule
from worker.training.precision import cast_frozen, convolution_probe, resolve_precision
from worker.training.sample import Sampler, embeddings_needed
from worker.training.text import FrozenText, LiveText, Text

LORA_SEED_SHIFT = 0x10_4A


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of a training, ready for its first step."""

    lora: Lora
    learner: Learner
    batches: Batches
    sampler: Sampler
    precision: Precision


def encode_pictures(
    base: LoadedBase,
    images: Sequence[TrainingImage],
    config: TrainConfig,
    *,
    cache: Path | None,
    keep_going: Callable[[], None],
) -> list[EncodedBucket]:
    """Give the latents of all pictures, then drop the VAE's encoder for good."""
    buckets = encode_images(
        images,
        base.vae,
        resolution=resolution_of(config, base),
        flip=config.flip,
        folder=cache,
        keep_going=keep_going,
    )
    base.vae.encoder = None
    if hasattr(base.vae, "quant_conv"):
        base.vae.quant_conv = None
    return buckets


def prepare(
    base: LoadedBase,
    buckets: Sequence[EncodedBucket],
    captions: Sequence[str],
    config: TrainConfig,
    *,
    device: str,
    precision: Precision,
) -> Prepared:
    """Put the adapter into the base and everything else around it; consumes the base."""
    prediction = prediction_of(config, base)
    lora = add_adapter(base, config, device=device)
    text = _text(base, captions, config, device=device)
    precision = choose_precision(base, buckets[0], config, precision, device=device)
    for model in (base.unet, *base.text_encoders):
        cast_frozen(model, precision)
    schedule = NoiseSchedule.of(base.scheduler_config, device=device)
    model = Model(base.unet, text, schedule, prediction, precision, device)
    sampler = Sampler(
        unet=base.unet,
        vae=base.vae,
        text=text,
        config=config,
        scheduler_config=base.scheduler_config,
        prediction=prediction,
        resolution=resolution_of(config, base),
        device=device,
    )
    batches = Batches(buckets, captions, config, timesteps=len(schedule))
    return Prepared(lora, Learner(model, lora, config), batches, sampler, precision)


def add_adapter(base: LoadedBase, config: TrainConfig, *, device: str) -> Lora:
    """Put a fresh adapter into the base's UNet and, if it trains, its text encoders."""
    generator = torch.Generator().manual_seed(config.seed ^ LORA_SEED_SHIFT)
    lora = inject(base.unet, base.text_encoders, config, generator=generator)
    for model in (base.unet, *base.text_encoders):
        model.to(device)
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


def _text(base: LoadedBase, captions: Sequence[str], config: TrainConfig, *, device: str) -> Text:
    if config.train_text_encoder:
        return LiveText(base, device=device)
    known = FrozenText(base, ["", *captions, *embeddings_needed(config)], device=device)
    base.text_encoders.clear()
    return known
