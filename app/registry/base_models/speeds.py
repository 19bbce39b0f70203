"""Training speeds of this machine, measured by workers."""

from __future__ import annotations

from statistics import median
from typing import Any

from sqlmodel import Session, select

from app.registry.db import utcnow
from app.registry.tables.added_models import BaseSpeed
from worker.core.training.config import TrainConfig

BYTES_PER_FP16 = 2
RECENT = 5
"""Measurements of which the median is taken: one run beside other work does not decide alone."""

MEASURED_STEPS = 20
"""Steps of a run that is too short to be compared with others."""


def trained_layers(config: TrainConfig) -> str:
    """Summary of the trained layers; configs with equal summaries train the same layers."""
    words = [config.kind, config.targets, f"in {config.blocks}"]
    if config.train_text_encoder:
        rank = config.text_encoder_rank
        words.append(f"text at {rank}" if rank else "text")
    return " ".join(words)


def record_speed(
    session: Session,
    base_model_id: int,
    config: TrainConfig,
    *,
    resolution: int,
    seconds_per_step: float,
    trainable_parameters: int,
    adapter_bytes: int | None = None,
    steps: int | None = None,
) -> BaseSpeed:
    """Store that steps of a training with this config took so long.

    The median of the last measurements of the same kind is the speed. One of fewer `steps` than
    `MEASURED_STEPS` counts only while there is no other. `adapter_bytes`: of its file; None: what
    its parameters take in fp16.
    """
    kind: dict[str, Any] = {
        "base_model_id": base_model_id,
        "batch_size": config.batch_size,
        "resolution": resolution,
        "rank": config.rank,
        "layers": trained_layers(config),
    }
    row = session.exec(select(BaseSpeed).filter_by(**kind)).first()
    is_rough = steps is not None and steps < MEASURED_STEPS
    if row is not None and is_rough:
        return row
    seconds = seconds_per_step / config.step_cost
    row = row or BaseSpeed(**kind, seconds_per_step=seconds)
    if not is_rough:
        row.recent_seconds = [*row.recent_seconds, seconds][-RECENT:]
        row.seconds_per_step = median(row.recent_seconds)
    row.trainable_parameters = trainable_parameters
    row.adapter_bytes = adapter_bytes or trainable_parameters * BYTES_PER_FP16
    row.measured_at = utcnow()
    session.add(row)
    return row
