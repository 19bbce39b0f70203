"""Writes the events of a training to the registry: progress, metrics, samples, checkpoints."""

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
from app.registry.runs.progress import MetricPoints, NewSample
from app.registry.storage.store import BlobStore
from app.registry.thumbnails.make import make_thumbnails
from worker.core.training.config import TrainConfig
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Event,
    Notice,
    PhaseStarted,
    RolledBack,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from worker.runtime.lease import Lease
from worker.runtime.scratch import pack_checkpoint

FLUSH_SECONDS = 0.7
SMOOTHING = 0.95
OUTAGE_SECONDS = 120.0  # how long the end of a run waits for an unreachable database
RETRY_SECONDS = 1.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class Reporter:
    """Records a training's events; progress is written at most every `FLUSH_SECONDS`.

    While the database is unreachable, progress is buffered; samples and checkpoints wait.
    Raises LostLease as soon as another worker owns the run.
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
        """Training time of all attempts until now."""
        return self._run.training_seconds + time.monotonic() - self._started

    @property
    def seconds_per_step(self) -> float | None:
        """Median time of a step without sampling; None before the first step."""
        return 1 / statistics.median(self._speeds) if self._speeds else None

    def set(self, **values: Any) -> None:
        """Set columns of the run, which are written with the next progress."""
        self._values |= values

    def record_event(self, event: Event) -> None:
        """Record an event; images and checkpoints are stored at once."""
        if isinstance(event, StepDone):
            self._record_step(event)
        elif isinstance(event, SampleSaved):
            self._store_sample(event)
        elif isinstance(event, CheckpointSaved):
            self._store_checkpoint(event)
        elif isinstance(event, PhaseStarted):
            self.set(phase=str(event.phase))
        elif isinstance(event, BaseFacts):
            self.set(
                trainable_parameters=event.trainable_parameters,
                base_parameters=event.base_parameters,
            )
        elif isinstance(event, Arithmetic):
            self.set(arithmetic=asdict(event))
        elif isinstance(event, ValidationDone):
            self._store_held_out(event)
        elif isinstance(event, RolledBack):
            self._record_rollback(event)
        elif isinstance(event, Notice):
            self._store_notice(event)

    def flush(self, *, now: bool = False) -> None:
        """Write progress if it is due, or immediately with `now`."""
        if not now and time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        self._flushed = time.monotonic()
        if not self._values and not self._losses:
            return
        try:
            with self._database.write() as session:
                self.write_pending(session)
        except sa.exc.OperationalError as error:
            log.warning("Progress is buffered until the database is reachable: %s", error)
            return
        self.forget_pending()

    def write_pending(self, session: Any) -> None:
        """Write progress in the caller's transaction; the caller then calls `forget_pending`."""
        points = None
        if self._losses:
            values = {"loss": self._losses, "learning_rate": self._rates}
            points = MetricPoints(self._first_step, values)
            if not self._resumed:
                progress.forget_after(session, self._run.key, self._first_step - 1)
        columns = {**self._values, "training_seconds": self.training_seconds}
        progress.write_progress(session, self._lease.claim, columns, points)

    def forget_pending(self) -> None:
        """Clear the buffered progress after it was committed."""
        self._resumed = self._resumed or bool(self._losses)
        self._values, self._losses, self._rates = {}, [], []

    def persist(self, write: Callable[[Any], T]) -> T:
        """Run `write(session)` in a transaction; retry while the database is unreachable."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            self._lease.check()
            try:
                with self._database.write() as session:
                    return write(session)
            except (sa.exc.OperationalError, sa.exc.IntegrityError):
                if time.monotonic() > deadline:
                    raise
                log.warning("Could not write to the database, will retry.", exc_info=True)
                self._lease.lost.wait(RETRY_SECONDS)

    def _record_step(self, event: StepDone) -> None:
        if not self._losses:
            self._first_step = event.step
            if not self._resumed:
                self._flushed = 0.0  # write the first step immediately
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

    def _store_held_out(self, event: ValidationDone) -> None:
        claim = self._lease.claim
        self.persist(
            lambda session: progress.add_held_out(
                session, claim, event.step, loss=event.loss, low=event.low, high=event.high
            )
        )

    def _record_rollback(self, event: RolledBack) -> None:
        """Delete everything recorded after that step."""
        self._losses, self._rates, self._smoothed = [], [], None
        self.set(step=event.step)

        def forget(session: Any) -> None:
            progress.write_progress(session, self._lease.claim, {"step": event.step})
            progress.forget_after(session, self._run.key, event.step)

        self.persist(forget)

    def _store_notice(self, event: Notice) -> None:
        self.notices.append(event.text)

        def write(session: Any) -> None:
            jobs.require_owner(session, Run, self._lease.claim)
            kind = WARNING if event.is_warning else NOTICE
            jobs.record(session, Run, self._run.key, kind, text=event.text)

        self.persist(write)

    def _store_sample(self, event: SampleSaved) -> None:
        self.persist(lambda session: progress.read_run_flags(session, self._lease.claim))
        try:
            blob = self._store.put_file(event.path)
            thumbnail = make_thumbnails(self._store, blob, event.path)
        except FileNotFoundError:
            log.warning("The sample %s is missing.", event.path)
            return
        new = NewSample(
            step=event.step,
            prompt_index=event.prompt_index,
            prompt=event.prompt,
            seed=event.seed,
            sha256=blob.sha256,
            thumbnail=thumbnail,
        )
        self.persist(lambda session: progress.add_sample(session, self._lease.claim, new))

    def _store_checkpoint(self, event: CheckpointSaved) -> None:
        claim = self._lease.claim
        self.persist(lambda session: progress.read_run_flags(session, claim))
        try:
            blob = pack_checkpoint(self._store, event.path, run_id=self._run.key)
        except FileNotFoundError:  # the trainer already deleted it, as it keeps only the newest
            log.warning("The checkpoint %s is missing.", event.path)
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
