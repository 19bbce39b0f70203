"""Estimated time, parameters and file size of a run, from measurements on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.base_models.speeds import trained_layers
from app.registry.tables.added_models import BaseModel
from worker.core.training.config import AdapterKind, TrainConfig

SAMPLE_STEP_COST = 0.5  # one denoising step of one sample, as a fraction of a training step
START_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run on this machine, from measurements; None if there are none."""

    seconds: float | None = None
    trainable_parameters: int | None = None
    adapter_bytes: int | None = None


def estimate(session: Session, base: BaseModel | None, config: TrainConfig) -> Estimate:
    """Time, parameters and file size of a run with this config, from the nearest measurement.

    The number of trained parameters requires a measurement of the same layers; the file size of a
    LoHa or LoKr also one of the same rank.
    """
    if base is None:
        return Estimate()
    resolution = config.resolution or base.resolution or 512
    speed = base_models.nearest_speed(session, base, config, resolution=resolution)
    if speed is None:
        return Estimate()
    batch = speed.seconds_per_step * config.batch_size / speed.batch_size
    sample_steps = count_sample_rows(config) * len(config.sample_prompts) * config.sample_steps
    sampling = sample_steps * SAMPLE_STEP_COST * batch / config.batch_size
    share = config.rank / speed.rank
    knows_layers = speed.layers == trained_layers(config)
    knows_file = knows_layers and (config.kind is AdapterKind.LORA or share == 1)
    return Estimate(
        seconds=START_UP_SECONDS + config.steps * batch * config.step_cost + sampling,
        trainable_parameters=round(speed.trainable_parameters * share) if knows_layers else None,
        adapter_bytes=round(speed.adapter_bytes * share) if knows_file else None,
    )


def count_sample_rows(config: TrainConfig) -> int:
    """Number of rows of samples: of the base, of every checkpoint, and those between."""
    every, saves = config.sample_every, config.checkpoint_every
    before = config.steps - 1  # the last step has a row anyway
    rows = sum(before // number for number in (every, saves) if number)
    return 2 + rows - (before // lcm(every, saves) if every and saves else 0)
