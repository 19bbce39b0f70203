"""Tables of runs, one training each, with metrics, samples and checkpoints; and of their sweeps."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col

from app.registry.db import AUTOINCREMENT, PlainJSON, utcnow
from app.registry.job_kinds.kinds import AdvanceSweepArgs, JobArgs
from app.registry.job_kinds.states import JobStatus, Queue
from app.registry.tables.adapters import SORT_NAME
from app.registry.tables.jobs import STATUS_CHECK, Job
from app.registry.tables.owned import Owned
from app.registry.tables.people import has_device_time
from app.registry.tables.rows import NumberedRow, Restorable, hide_deleted
from app.registry.validation import MAX_NAME

RUINED = "ruined"  # outcome of a run whose result is worse than the base model
NOTICE, WARNING = "notice", "warning"  # event kinds with a sentence in `text`


class Run(Restorable, Job, table=True):
    """One training of an adapter on pinned dataset versions: this one, and `RunDataset`."""

    __tablename__ = "run"
    __table_args__ = (sa.CheckConstraint(STATUS_CHECK, name="status"), AUTOINCREMENT)
    queue: ClassVar[Queue] = Queue.TRAIN

    name: str = Field(max_length=120)
    notes: str = Field(default="", sa_type=sa.Text)
    sort_name: str = Field(default="", sa_type=SORT_NAME, index=True)
    """Key for sorting by name; written by `search`."""
    search_text: str = Field(default="", sa_type=sa.Text)
    """Name, trigger word and notes as they are searched; written by `search`."""
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    dataset_version_id: int = Field(foreign_key="dataset_version.id")
    dataset_repeats: int = 1
    """How often an epoch uses the dataset; an image repeats its own times this."""
    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    preset: str | None = Field(default=None, max_length=20)
    own_preset: dict[str, Any] | None = Field(default=None, sa_type=PlainJSON)
    """The saved preset on top of `preset`, as it was: id, name, config, base."""
    trigger_word: str | None = Field(default=None, max_length=60)
    config: dict[str, Any] = Field(sa_type=PlainJSON)
    """A worker.core.training TrainConfig."""
    regularization_version_id: int | None = Field(default=None, foreign_key="dataset_version.id")
    """Regularization images, which keep the base model from forgetting."""
    parent_id: int | None = Field(default=None, foreign_key="run.id")
    adapter_id: int | None = Field(default=None, foreign_key="adapter.id")
    """The result becomes a version of this adapter; None: of a new one."""

    sweep_id: int | None = Field(default=None, index=True)
    """The sweep that it is part of; it may be deleted."""
    sweep_place: int | None = Field(default=None, description="Place of its configuration, from 0.")
    pause_at: int | None = None
    """Step at which it pauses, with its full state."""

    phase: str | None = Field(default=None, max_length=40)
    step: int = 0
    total_steps: int
    loss: float | None = Field(default=None, description="Smoothed training loss.")
    steps_per_second: float | None = None
    arithmetic: dict[str, Any] = Field(default_factory=dict, sa_type=PlainJSON)
    """Precision and threads of the first attempt; later attempts use the same."""
    device: str | None = Field(default=None, max_length=80)
    trainable_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    base_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    peak_memory_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    training_seconds: float = Field(default=0.0, description="Summed over all attempts.")
    resumed_at_step: int | None = None
    """Start step of the newest attempt."""
    adapter_version_id: int | None = Field(default=None, foreign_key="adapter_version.id")
    outcome: str | None = Field(default=None, max_length=20)
    """`ruined`; None: nothing is wrong with the result."""
    outcome_reason: str | None = Field(default=None, description="Why, as sentences.")
    good_steps: list[int] | None = Field(default=None, sa_type=PlainJSON)
    """Of a ruined run: steps whose checkpoints were not, the newest first."""
    loss_rise: float | None = None
    """Loss on the fixed images divided by the base model’s, while it is clearly worse."""

    stop_requested: bool = Field(default=False, description="Stop and keep the adapter.")
    make_latest: bool | None = None
    """Of a stop: the result becomes the version in use; None: as proposed."""
    sample_requested: bool = False
    save_requested: bool = False
    changes: list[dict[str, Any]] = Field(default_factory=list, sa_type=PlainJSON)
    """What changed in `config` while it trained: worker.core.training Changes."""
    change_requested: dict[str, Any] | None = Field(default=None, sa_type=PlainJSON)
    """Values that the trainer has not taken yet, with the number of their event."""

    @classmethod
    def claimable(cls, session: Session, queue: str) -> sa.ColumnElement[bool]:
        """Runs of people whose device time is used up wait."""
        return has_device_time(session, col(cls.owner_id))

    @classmethod
    def follow_up(cls, session: Session, job_id: int) -> tuple[JobArgs, int] | None:
        """A look at its sweep."""
        of_run = sa.select(col(cls.sweep_id)).where(col(cls.id) == job_id)
        sweep_id = session.connection().execute(of_run).scalar_one()
        return (AdvanceSweepArgs(), sweep_id) if sweep_id else None

    @property
    def times(self) -> list[tuple[str, datetime]]:
        """When it was queued, started and ended, as far as that happened, with a word for each."""
        ended = "finished" if self.state is JobStatus.SUCCEEDED else self.status
        moments = [("queued", self.created_at), ("started", self.started_at)]
        moments.append((ended, self.finished_at))
        return [(word, moment) for word, moment in moments if moment]


class RunDataset(SQLModel, table=True):
    """A further dataset of a run on several; the first one is in the row of the run."""

    __tablename__ = "run_dataset"
    __table_args__ = (
        sa.UniqueConstraint("run_id", "dataset_id"),
        sa.UniqueConstraint("run_id", "place"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="run.id", index=True)
    place: int = Field(description="Its place among the datasets of the run, from 2.")
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    dataset_version_id: int = Field(foreign_key="dataset_version.id", index=True)
    repeats: int = Field(default=1, description="Like `Run.dataset_repeats`.")


class OwnPreset(Restorable, Owned, NumberedRow, table=True):
    """A preset that somebody saved: a shipped one with changes."""

    __tablename__ = "own_preset"
    __table_args__ = (sa.UniqueConstraint("owner_id", "name_key"), AUTOINCREMENT)

    name: str = Field(max_length=120)
    name_key: str = Field(max_length=400, description="Without upper case.")
    preset: str = Field(max_length=20, description="The shipped preset that it changes.")
    config: dict[str, Any] = Field(sa_type=PlainJSON)
    """The settings that differ from it."""
    base_family: str | None = Field(default=None, max_length=20)
    resolution: int | None = Field(default=None, description="Of the base it was saved for.")
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def snapshot(self) -> dict[str, Any]:
        """The fields that a run stores which starts with it."""
        kept = {"id", "name", "config", "base_family", "resolution"}
        return self.model_dump(include=kept)


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


class Sample(NumberedRow, table=True):
    """An image generated during a run; step 0 is the base model without the adapter.

    It belongs to the run, or to a version of an adapter once the run is deleted.
    """

    __tablename__ = "sample"
    __table_args__ = (
        sa.UniqueConstraint("run_id", "step", "prompt_index"),
        sa.UniqueConstraint("version_id", "step", "prompt_index"),
    )

    run_id: int | None = Field(default=None, foreign_key="run.id", index=True)
    version_id: int | None = Field(default=None, foreign_key="adapter_version.id")
    step: int
    prompt_index: int
    prompt: str = Field(sa_type=sa.Text)
    seed: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, index=True, description="Blob of the PNG.")
    created_at: datetime = Field(default_factory=utcnow)


class Checkpoint(Restorable, NumberedRow, table=True):
    """The full state of a run at a step; any worker can continue from it.

    Its adapter is a version of the unlisted adapter of the run, which may outlive the state.
    """

    __tablename__ = "checkpoint"
    __table_args__ = (sa.UniqueConstraint("run_id", "step"),)

    run_id: int = Field(foreign_key="run.id", index=True)
    step: int
    sha256: str = Field(max_length=64, description="Blob of the tar of the checkpoint folder.")
    size_bytes: int = Field(sa_type=sa.BigInteger)
    kept: bool = Field(default=False, description="A person saved or keeps it.")
    created_at: datetime = Field(default_factory=utcnow)


class Stage(StrEnum):
    """HALF: all train to half of their steps. FULL: those that go on. CONFIRM: the first two."""

    HALF = "half"
    FULL = "full"
    CONFIRM = "confirm"


class Sweep(Restorable, Owned, NumberedRow, table=True):
    """A sweep; its runs name it in `sweep_id`, with the place of their configuration."""

    __tablename__ = "sweep"
    __table_args__ = (sa.CheckConstraint(STATUS_CHECK, name="status"), AUTOINCREMENT)

    title: str = Field(max_length=MAX_NAME)
    status: str = Field(default=JobStatus.RUNNING, max_length=16, index=True)
    stage: str = Field(max_length=16)
    plan: dict[str, Any] = Field(sa_type=PlainJSON)
    """A SweepPlan: what is trained and drawn, and what it was expected to cost."""
    result: dict[str, Any] = Field(default_factory=dict, sa_type=PlainJSON)
    """A SweepResult: what was measured so far, and what was found."""
    error: str | None = Field(default=None, description="Why it cannot go on, as a sentence.")
    created_at: datetime = Field(default_factory=utcnow)
    finished_at: datetime | None = None

    @property
    def state(self) -> JobStatus:
        """The status as its enum."""
        return JobStatus(self.status)


hide_deleted(Run, OwnPreset, Checkpoint, Sweep)
