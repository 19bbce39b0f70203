"""Measures the time of a step and counts parameters, by taking a few steps on random images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.core.bases.inspect import vae_factor
from worker.core.bases.load import LoadedBase
from worker.core.families.networks import network_of
from worker.core.training.adapter.lora import remove_adapters
from worker.core.training.config import TrainConfig
from worker.core.training.data.batches import Batches
from worker.core.training.data.buckets import Size
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.data.text import LiveCaptionEncoder
from worker.core.training.learner import Learner, Model
from worker.core.training.prepare import (
    add_adapter,
    base_parameters,
    cast_and_move,
    choose_precision,
    make_process,
    resolution_of,
    restore_rounded_denoiser,
)

WARM_UP_STEPS = 1
TIMED_STEPS = 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected cost of a training on this machine."""

    seconds_per_step: float
    trainable_parameters: int
    base_parameters: int


def calibrate(
    base: LoadedBase, config: TrainConfig, *, device: str, timed_steps: int = TIMED_STEPS
) -> Calibration:
    """Take real steps on random latents; the base is restored afterwards."""
    with _restore_afterwards(base):
        bucket = _random_bucket(base, config)
        precision = choose_precision(base, bucket, config, config.precision, device=device)
        restore_rounded_denoiser(base, precision, device=device)
        lora = add_adapter(base, config)
        cast_and_move(base, precision, device=device)
        process = make_process(base, config, device=device)
        text = LiveCaptionEncoder(base, device=device)
        network = network_of(base.info.family)
        model = Model(network, base.denoiser, text, process, precision, device)
        learner = Learner(model, lora, config)
        images = [TrainingImage(Path("random"), "", "a random image")] * len(bucket.images)
        batches = Batches([bucket], images, config, process=process)
        seconds = []
        for step in range(WARM_UP_STEPS + timed_steps):
            started = time.perf_counter()
            learner.learn([batches.next()], step=step)
            seconds.append(time.perf_counter() - started)
        size = lora.size
    return Calibration(
        seconds_per_step=min(seconds[WARM_UP_STEPS:]),
        trainable_parameters=size,
        base_parameters=base_parameters(base),
    )


def _random_bucket(base: LoadedBase, config: TrainConfig) -> EncodedBucket:
    side = resolution_of(config, base)
    channels, latent_side = base.denoiser.config.in_channels, side // vae_factor(base.vae.config)
    count = config.batch_size
    variants = 2 if config.flip else 1
    generator = torch.Generator().manual_seed(config.seed)
    shape = (count, variants, channels, latent_side, latent_side)
    mean = torch.randn(shape, generator=generator)
    time_ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
    size = Size(side, side)
    return EncodedBucket(size, tuple(range(count)), mean, None, time_ids.expand(count, -1))


@contextmanager
def _restore_afterwards(base: LoadedBase) -> Iterator[None]:
    """Restore the base on exit: without adapter, in its own number types."""
    parts = [base.denoiser, *base.text_encoders]
    weights = [
        (parameter, parameter.data, parameter.requires_grad)
        for part in parts
        for parameter in part.parameters()
    ]
    checkpointing = base.denoiser.is_gradient_checkpointing
    processors = dict(getattr(base.denoiser, "attn_processors", {}))
    try:
        yield
    finally:
        if processors:
            base.denoiser.set_attn_processor(processors)
        for part in parts:
            remove_adapters(part)
        for parameter, data, requires_grad in weights:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
        if not checkpointing:
            base.denoiser.disable_gradient_checkpointing()
