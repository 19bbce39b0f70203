"""Prepares a training: everything between a loaded base and the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.core.bases.load import LoadedBase
from worker.core.families.facts.family_facts import reasons_against
from worker.core.families.family import usual_drawing
from worker.core.families.network import Process
from worker.core.families.networks import network_of
from worker.core.training.adapter.lora import Lora, inject_adapter, target_layers
from worker.core.training.attention import speed_up_attention
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.batches import Batches
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket, encode_images
from worker.core.training.data.split import split
from worker.core.training.data.text import (
    CaptionEncoder,
    LiveCaptionEncoder,
    LruCaptionEncoder,
    PrecomputedCaptionEncoder,
)
from worker.core.training.data.validation import ValidationSet, fixed_set
from worker.core.training.errors import UnsupportedError
from worker.core.training.learner import Learner, Model
from worker.core.training.precision import cast_frozen, denoiser_probe, resolve_precision
from worker.core.training.samples.sampler import Sampler, sample_requests, sample_texts
from worker.core.words import PredictionType

LORA_SEED_SHIFT = 0x10_4A


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """The encoded images of a run by bucket: the training set and the validation set."""

    images: Sequence[TrainingImage]
    buckets: Sequence[EncodedBucket]
    held_out: Sequence[TrainingImage]
    held_out_buckets: Sequence[EncodedBucket]

    @property
    def captions(self) -> list[str]:
        """The captions of all images."""
        return [text for image in (*self.images, *self.held_out) for text in image.texts]


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """The parts of a training, ready for the first step."""

    lora: Lora
    learner: Learner
    batches: Batches
    validation: ValidationSet | None
    fixed: ValidationSet
    sampler: Sampler
    precision: Precision


def encode_dataset(
    base: LoadedBase,
    images: Sequence[TrainingImage],
    config: TrainConfig,
    *,
    cache: Path | None,
    check_stop: Callable[[], None],
    device: str = "cpu",
) -> EncodedDataset:
    """Encode all images, then drop the VAE's encoder.

    The VAE stays on the device: its decoder is needed for samples.
    """
    base.vae.to(device)
    trained, held_out = split(images, config.validation_share, seed=config.measuring_seed)

    def encoded(chosen: Sequence[TrainingImage], *, flip: bool) -> list[EncodedBucket]:
        return encode_images(
            chosen,
            base.vae,
            resolution=resolution_of(config, base),
            flip=flip,
            folder=cache,
            squares=not config.aspect_buckets,
            side_step=base.info.family.facts.options.side_step,
            check_stop=check_stop,
        )

    result = EncodedDataset(
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
    encoded: EncodedDataset,
    config: TrainConfig,
    prompts: Sequence[str] = (),
    *,
    device: str,
    precision: Precision,
    cache: Path | None = None,
) -> PreparedTraining:
    """Inject the adapter into the base and build everything else; consumes the base.

    `prompts`: what its sampler draws beside captions and samples. Raises UnsupportedError when the
    adapter could not be saved.
    """
    precision = choose_precision(base, encoded.buckets[0], config, precision, device=device)
    restore_rounded_denoiser(base, precision, device=device)
    lora = add_adapter(base, config)
    texts = [*encoded.captions, *prompts]
    text = _make_caption_encoder(base, texts, config, device=device, cache=cache)
    cast_and_move(base, precision, device=device)
    if config.compile:
        base.denoiser.compile_repeated_blocks(fullgraph=False)
    network, process = network_of(base.info.family), make_process(base, config, device=device)
    model = Model(network, base.denoiser, text, process, precision, device)
    sampler = Sampler(
        network=network,
        denoiser=base.denoiser,
        vae=base.vae,
        text=text,
        scaled=lora.scaled,
        config=config,
        scheduler_config=schedule_of(config, base),
        prediction=prediction_of(config, base),
        resolution=resolution_of(config, base),
        device=device,
    )
    validation = None
    if encoded.held_out:
        validation = ValidationSet(
            encoded.held_out_buckets,
            encoded.held_out,
            process=process,
            batch_size=config.batch_size,
            seed=config.measuring_seed,
            masked_as=config,
        )
    batches = Batches(encoded.buckets, encoded.images, config, process=process)
    learner = Learner(model, lora, config)
    fixed = fixed_set(encoded.buckets, encoded.images, config, process=process)
    return PreparedTraining(lora, learner, batches, validation, fixed, sampler, precision)


def restore_rounded_denoiser(base: LoadedBase, precision: Precision, *, device: str) -> None:
    """Read a UNet that was loaded as bf16 again if the precision needs more; without adapters."""
    is_rounded = device.startswith("cpu") and base.denoiser.dtype is torch.bfloat16
    if is_rounded and precision is not Precision.BF16:
        base.cast_denoiser(torch.float32)


def cast_and_move(base: LoadedBase, precision: Precision, *, device: str) -> None:
    """Cast the frozen parts of a base and move them to the device.

    Cast before moving: an SDXL UNet takes 10 GB in fp32 and half in bf16.
    """
    for part in (base.denoiser, *base.text_encoders):
        cast_frozen(part, precision)
        part.to(device)
    if device.startswith("cpu"):
        speed_up_attention(base.denoiser)


def check_supported(config: TrainConfig, base: LoadedBase, *, device: str) -> None:
    """Raise UnsupportedError for what this base or device cannot do; needs no images."""
    drawing = usual_drawing(base.info.family, base.info.variant)
    if drawing and drawing.untrained:
        raise UnsupportedError(drawing.untrained)
    if reasons := reasons_against(base.info.family.facts.options.training, config):
        raise UnsupportedError(" ".join(reasons.values()))
    resolution = resolution_of(config, base)
    sides = {resolution}
    for sample in sample_requests(config, resolution):
        sides |= {sample.settings.width, sample.settings.height}
    if reason := base.info.family.facts.side_problem(sides):
        raise UnsupportedError(reason)
    target_layers(base.denoiser, base.text_encoders, config, family=base.info.family)
    if config.compile and not device.startswith("cuda"):
        raise UnsupportedError("“Compile” needs an NVIDIA GPU. Turn it off.")
    ends_in_noise = schedule_of(config, base).get("rescale_betas_zero_snr", False)
    if ends_in_noise and prediction_of(config, base) == PredictionType.EPSILON:
        raise UnsupportedError(
            "Zero terminal SNR needs a v-prediction base model: with epsilon prediction nothing "
            "can be learned from pure noise. Turn “Zero terminal SNR” off, or set “Prediction "
            "type” to v if this base was trained with it."
        )
    layers = min(
        (encoder.config.num_hidden_layers for encoder in base.text_encoders),
        default=config.clip_skip,
    )
    if config.clip_skip > layers:
        raise UnsupportedError(
            f"CLIP skip is {config.clip_skip}, but this base has {layers} text layers: lower it."
        )


def make_process(base: LoadedBase, config: TrainConfig, *, device: str) -> Process:
    """The noise process of a training on this base."""
    return network_of(base.info.family).process(
        schedule_of(config, base), config, prediction=prediction_of(config, base), device=device
    )


def schedule_of(config: TrainConfig, base: LoadedBase) -> dict[str, Any]:
    """The base's noise schedule, with zero terminal SNR where the config asks for it."""
    forced = {"rescale_betas_zero_snr": True} if config.zero_terminal_snr else {}
    return dict(base.scheduler_config) | forced


def add_adapter(base: LoadedBase, config: TrainConfig) -> Lora:
    """Inject a fresh fp32 adapter into the UNet and, if configured, the text encoders."""
    generator = torch.Generator().manual_seed(config.seed ^ LORA_SEED_SHIFT)
    lora = inject_adapter(
        base.denoiser, base.text_encoders, config, generator=generator, family=base.info.family
    )
    if config.gradient_checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    return lora


def choose_precision(
    base: LoadedBase,
    bucket: EncodedBucket,
    config: TrainConfig,
    precision: Precision,
    *,
    device: str,
) -> Precision:
    """Resolve `auto` by timing the most common work of the denoiser at the batch's size."""
    shape = torch.Size([config.batch_size, *bucket.mean.shape[2:]])
    probe = denoiser_probe(base.denoiser.config, shape)
    return resolve_precision(precision, device=device, probe=probe)


def resolution_of(config: TrainConfig, base: LoadedBase) -> int:
    """The training resolution in pixels: the config's, else the base's."""
    return config.resolution or base.info.resolution


def prediction_of(config: TrainConfig, base: LoadedBase) -> str:
    """The prediction type: the config's, else the base's."""
    return config.prediction_type or base.info.prediction_type


def base_parameters(base: LoadedBase) -> int:
    """The number of parameters that full fine-tuning would train: UNet and text encoders."""
    return sum(count for name, count in base.info.parameters.items() if name != "vae")


def _make_caption_encoder(
    base: LoadedBase,
    captions: Sequence[str],
    config: TrainConfig,
    *,
    device: str,
    cache: Path | None,
) -> CaptionEncoder:
    for encoder in (
        base.text_encoders
    ):  # not in `prepare`: the loop variable would keep the last encoder alive
        encoder.to(device)
    skip = config.clip_skip
    if config.train_text_encoder:
        return LiveCaptionEncoder(base, device=device, clip_skip=skip)
    if config.shuffle_tags:
        return LruCaptionEncoder(base, device=device, clip_skip=skip)
    needed = ["", *captions, *sample_texts(config)]
    known = PrecomputedCaptionEncoder(base, needed, device=device, clip_skip=skip, folder=cache)
    base.text_encoders.clear()
    return known
