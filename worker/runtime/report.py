"""Writes what a training tells to the registry: progress, metrics, samples, checkpoints."""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.runs import progress
from app.registry.runs.models import NOTICE, WARNING, Run
from app.registry.runs.progress import NewSample, Points
from app.registry.storage.store import BlobStore
from worker.core.training.config import TrainConfig
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Event,
    HeldOut,
    Notice,
    PhaseStarted,
    RolledBack,
    SampleSaved,
    StepDone,
)
from worker.runtime.lease import Lease
from worker.runtime.scratch import pack_checkpoint

FLUSH_SECONDS = 0.7
SMOOTHING = 0.95
OUTAGE_SECONDS = 120.0  # how long the end of a run waits for a database that is away
RETRY_SECONDS = 1.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class Reporter:
    """Takes a training's events; progress goes out at most every `FLUSH_SECONDS`.

    While the database is away, progress is kept and written later; samples and checkpoints wait.
    Raises LostLease as soon as the run is not ours.
    """

    def __init__(self, database: Database, store: BlobStore, run: Run, lease: Lease) -> None:
        self._database = database
        self._store = store
        self._run = run
        self._lease = lease
        self._config = TrainConfig.model_validate(run.config)
        self._values: dict[str, Any] = {}
        self._losses: list[float] = []
        self._rates: list[float] = []
        self._first_step = 0
        self._resumed = False
        self._smoothed: float | None = None
        self._speeds: list[float] = []
        self._started = self._flushed = time.monotonic()
        self.notices: list[str] = []

    @property
    def training_seconds(self) -> float:
        """Of all attempts together, until now."""
        return self._run.training_seconds + time.monotonic() - self._started

    @property
    def seconds_per_step(self) -> float | None:
        """The middle of what steps took, without sampling; None before there was one."""
        return 1 / statistics.median(self._speeds) if self._speeds else None

    def set(self, **values: Any) -> None:
        """Columns of the run to write with the next progress."""
        self._values |= values

    def take(self, event: Event) -> None:
        """Note an event; pictures and checkpoints are stored at once."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, SampleSaved):
            self._sample(event)
        elif isinstance(event, CheckpointSaved):
            self._checkpoint(event)
        elif isinstance(event, PhaseStarted):
            self.set(phase=str(event.phase))
        elif isinstance(event, BaseFacts):
            self.set(
                trainable_parameters=event.trainable_parameters,
                base_parameters=event.base_parameters,
            )
        elif isinstance(event, Arithmetic):
            self.set(arithmetic=asdict(event))
        elif isinstance(event, HeldOut):
            self._held_out(event)
        elif isinstance(event, RolledBack):
            self._roll_back(event)
        elif isinstance(event, Notice):
            self._notice(event)

    def flush(self, *, now: bool = False) -> None:
        """Write progress when it is time for it."""
        if not now and time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        self._flushed = time.monotonic()
        if not self._values and not self._losses:
            return
        try:
            with self._database.write() as session:
                self.write_pending(session)
        except sa.exc.OperationalError as error:
            log.warning("Progress is kept until the database is back: %s", error)
            return
        self.forget_pending()

    def write_pending(self, session: Any) -> None:
        """Write progress within a transaction of the caller, who then calls `forget_pending`."""
        points = None
        if self._losses:
            values = {"loss": self._losses, "learning_rate": self._rates}
            points = Points(self._first_step, values)
            if not self._resumed:
                progress.forget_after(session, self._run.key, self._first_step - 1)
        columns = {**self._values, "training_seconds": self.training_seconds}
        progress.write_progress(session, self._lease.claim, columns, points)

    def forget_pending(self) -> None:
        """What was pending is committed."""
        self._resumed = self._resumed or bool(self._losses)
        self._values, self._losses, self._rates = {}, [], []

    def persist(self, write: Callable[[Any], T]) -> T:
        """Run `write(session)` in a transaction, again and again while the database is away."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            self._lease.check()
            try:
                with self._database.write() as session:
                    return write(session)
            except (sa.exc.OperationalError, sa.exc.IntegrityError):
                if time.monotonic() > deadline:
                    raise
                log.warning("Trying to write to the database again.", exc_info=True)
                self._lease.lost.wait(RETRY_SECONDS)

    def _step(self, event: StepDone) -> None:
        if not self._losses:
            self._first_step = event.step
            if not self._resumed:
                self._flushed = 0.0  # people see at once that the run began
            if not self._resumed and self._run.attempt > 1:
                self.set(resumed_at_step=event.step - 1)
        self._losses.append(event.loss)
        self._rates.append(event.learning_rate)
        if math.isfinite(event.loss):
            old = self._smoothed if self._smoothed is not None else event.loss
            self._smoothed = SMOOTHING * old + (1 - SMOOTHING) * event.loss
        if event.steps_per_second > 0:
            self._speeds.append(event.steps_per_second)
        self.set(
            step=event.step,
            total_steps=event.total,
            loss=self._smoothed,
            steps_per_second=event.steps_per_second or None,
        )

    def _held_out(self, event: HeldOut) -> None:
        claim = self._lease.claim
        self.persist(
            lambda session: progress.add_held_out(
                session, claim, event.step, loss=event.loss, low=event.low, high=event.high
            )
        )

    def _roll_back(self, event: RolledBack) -> None:
        """What came after that step is forgotten, written or not."""
        self._losses, self._rates, self._smoothed = [], [], None
        self.set(step=event.step)

        def forget(session: Any) -> None:
            progress.write_progress(session, self._lease.claim, {"step": event.step})
            progress.forget_after(session, self._run.key, event.step)

        self.persist(forget)

    def _notice(self, event: Notice) -> None:
        self.notices.append(event.text)

        def write(session: Any) -> None:
            jobs.require_owner(session, Run, self._lease.claim)
            kind = WARNING if event.is_warning else NOTICE
            jobs.record(session, Run, self._run.key, kind, text=event.text)

        self.persist(write)

    def _sample(self, event: SampleSaved) -> None:
        self.persist(lambda session: progress.read_wishes(session, self._lease.claim))
        try:
            blob = self._store.put_file(event.path)
        except FileNotFoundError:
            log.warning("The sample %s is gone.", event.path)
            return
        new = NewSample(event.step, event.prompt_index, event.prompt, event.seed, blob.sha256)
        self.persist(lambda session: progress.add_sample(session, self._lease.claim, new))

    def _checkpoint(self, event: CheckpointSaved) -> None:
        claim = self._lease.claim
        self.persist(lambda session: progress.read_wishes(session, claim))
        try:
            blob = pack_checkpoint(self._store, event.path, run_id=self._run.key)
        except FileNotFoundError:  # the trainer keeps only the newest few and was faster
            log.warning("The checkpoint %s is gone.", event.path)
            return
        self.flush(now=True)  # a resumed run must find the metrics up to here
        unused = self.persist(
            lambda session: progress.add_checkpoint(
                session,
                claim,
                step=event.step,
                sha256=blob.sha256,
                size_bytes=blob.size,
                keep=self._config.keep_checkpoints,
            )
        )
        for sha256 in unused:
            with contextlib.suppress(OSError):
                self._store.delete(sha256)
