"""Tables of runs: one training each, with metrics, samples and checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.db import utcnow
from app.registry.jobs.models import STATUS_CHECK, Job
from app.registry.jobs.queues import Queue

NOTICE, WARNING = "notice", "warning"  # event kinds with a sentence in `text`


class Run(Job, table=True):
    """One training of an adapter on a pinned dataset version."""

    __tablename__ = "run"
    __table_args__ = (sa.CheckConstraint(STATUS_CHECK, name="status"),)
    queue: ClassVar[Queue] = Queue.TRAIN

    name: str = Field(max_length=120)
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    dataset_version_id: int = Field(foreign_key="dataset_version.id")
    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    preset: str | None = Field(default=None, max_length=20)
    trigger_word: str | None = Field(default=None, max_length=60)
    config: dict[str, Any] = Field(
        sa_type=sa.JSON, description="A worker.core.training TrainConfig."
    )
    regularization_version_id: int | None = Field(
        default=None,
        foreign_key="dataset_version.id",
        description="Regularization images, which keep the base model from forgetting.",
    )
    parent_id: int | None = Field(default=None, foreign_key="run.id")
    adapter_id: int | None = Field(
        default=None,
        foreign_key="adapter.id",
        description="The result becomes a version of this adapter; None: of a new one.",
    )

    phase: str | None = Field(default=None, max_length=40)
    step: int = 0
    total_steps: int
    loss: float | None = Field(default=None, description="Smoothed training loss.")
    steps_per_second: float | None = None
    arithmetic: dict[str, Any] = Field(
        default_factory=dict,
        sa_type=sa.JSON,
        description="Precision and threads of the first attempt; later attempts use the same.",
    )
    device: str | None = Field(default=None, max_length=80)
    trainable_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    base_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    peak_memory_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    training_seconds: float = Field(default=0.0, description="Summed over all attempts.")
    resumed_at_step: int | None = Field(
        default=None, description="Start step of the newest attempt."
    )
    adapter_version_id: int | None = Field(default=None, foreign_key="adapter_version.id")

    stop_requested: bool = Field(default=False, description="Stop and keep the adapter.")
    sample_requested: bool = False
    save_requested: bool = False


class MetricChunk(SQLModel, table=True):
    """Up to 200 values of one metric at consecutive steps, as little-endian float32."""

    __tablename__ = "metric_chunk"
    __table_args__ = (sa.UniqueConstraint("run_id", "key", "first_step"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="run.id", index=True)
    key: str = Field(max_length=40)
    first_step: int
    count: int
    minimum: float
    maximum: float
    mean: float
    data: bytes


class Sample(SQLModel, table=True):
    """An image generated during a run; step 0 is the base model without the adapter."""

    __tablename__ = "sample"
    __table_args__ = (sa.UniqueConstraint("run_id", "step", "prompt_index"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="run.id", index=True)
    step: int
    prompt_index: int
    prompt: str = Field(sa_type=sa.Text)
    seed: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, description="Blob of the PNG.")
    created_at: datetime = Field(default_factory=utcnow)


class Checkpoint(SQLModel, table=True):
    """The full state of a run at a step; any worker can continue from it."""

    __tablename__ = "checkpoint"
    __table_args__ = (sa.UniqueConstraint("run_id", "step"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="run.id", index=True)
    step: int
    sha256: str = Field(max_length=64, description="Blob of the tar of the checkpoint folder.")
    size_bytes: int = Field(sa_type=sa.BigInteger)
    created_at: datetime = Field(default_factory=utcnow)
