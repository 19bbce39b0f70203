"""Writes the events of a training to the registry: progress, metrics, samples, checkpoints."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from app.registry.jobs import service as jobs
from app.registry.runs import changing, progress
from app.registry.runs.progress import FIXED_LOSS, HELD_OUT, MetricPoints, RunFlags
from app.registry.tables.runs import NOTICE, WARNING, Run
from app.registry.wording import duration
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Event,
    FixedLoss,
    Notice,
    Phase,
    PhaseStarted,
    RolledBack,
    SampleSaved,
    SettingsChanged,
    StepDone,
    ValidationDone,
)
from worker.runtime.attempts.training_files import TrainingFiles
from worker.runtime.attempts.work import RunWork
from worker.runtime.outages.patience import (
    WAITS_FOR_SPACE,
    CanceledWhileWaiting,
    GaveUp,
    reason_to_wait,
    wait_out,
)
from worker.runtime.outages.uploads import Uploads

FLUSH_SECONDS = 0.7
SMOOTHING = 0.95
STOP_SECONDS = 10.0  # how long a worker that stops waits for an outage to end
CONFLICTS = 60  # tries to write a row whose name another run takes at the same time
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.2
WAITED = (
    "Storage, database or disk could not be used for {waited}. The training went on, and what it "
    "saved meanwhile is stored now."
)
LOSS_ROSE = "At step {step:,} the loss on fixed images is {rise:.1f} times that of the base model."

T = TypeVar("T")
log = logging.getLogger(__name__)


class Reporter:
    """Records a training's events; progress is written at most every `FLUSH_SECONDS`.

    Samples and checkpoints are stored by a thread. During an outage of database, storage or disk,
    progress is buffered, and samples and checkpoints wait as files: the training goes on.
    Raises LostLease as soon as another worker owns the run.
    """

    def __init__(self, work: RunWork) -> None:
        run = work.run
        self._database = work.database
        self._run = run
        self._lease = work.lease
        self._stopping = work.stopping
        self._lock = threading.RLock()  # of what is buffered; taken before the database is
        self._is_full = False  # the trainer waits for space
        self._is_high = run.loss_rise is not None
        self._rose: FixedLoss | None = None
        self._fixed_losses: dict[int, float] = {}
        self._stopping_since: float | None = None
        self.uploads = Uploads(on_wait=self.show_wait, on_late=self._record_wait)
        flush = partial(self.flush, now=True)
        self._files = TrainingFiles(work, self.uploads, flush=flush)
        self._was_started = run.attempt > 1 or run.step > 0
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

    @property
    def measured_steps(self) -> int:
        """Number of steps behind `seconds_per_step`."""
        return len(self._speeds)

    def set(self, **values: Any) -> None:
        """Set columns of the run, written with the next progress."""
        with self._lock:
            self._values |= values

    def show_wait(self, reason: str | None) -> None:
        """Show what the run waits for; None: nothing any more."""
        self.set(waits_for=reason)

    def read_flags(self) -> RunFlags:
        """The requests to this run; none while the database cannot be read. Raises LostLease."""
        try:
            with self._database.read() as session:
                return progress.read_run_flags(session, self._lease.claim)
        except sa.exc.SQLAlchemyError as error:
            if reason_to_wait(error) is None:
                raise
            return RunFlags(cancel=False, stop=False, sample=False, save=False)

    def record_event(self, event: Event) -> None:
        """Record an event; images and checkpoints are stored at once."""
        if isinstance(event, StepDone):
            with self._lock:
                self._buffer_step(event)
        elif isinstance(event, SampleSaved):
            self._files.store_sample(event)
        elif isinstance(event, CheckpointSaved):
            self._files.store_checkpoint(event)
        elif isinstance(event, PhaseStarted):
            self._record_phase(event.phase)
        elif isinstance(event, BaseFacts):
            self.set(
                trainable_parameters=event.trainable_parameters,
                base_parameters=event.base_parameters,
            )
        elif isinstance(event, Arithmetic):
            self.set(arithmetic=asdict(event))
        elif isinstance(event, ValidationDone):
            values = dict(zip(HELD_OUT, (event.loss, event.low, event.high), strict=True))
            self._store_measures(event.step, values)
        elif isinstance(event, FixedLoss):
            self._buffer_fixed_loss(event)
        elif isinstance(event, RolledBack):
            self._record_rollback(event)
        elif isinstance(event, SettingsChanged):
            self._record_change(event)
        elif isinstance(event, Notice):
            self._store_notice(event)

    def flush(self, *, now: bool = False) -> None:
        """Write progress if it is due, or immediately with `now`."""
        with self._lock:
            if not now and time.monotonic() - self._flushed < FLUSH_SECONDS:
                return
            self._flushed = time.monotonic()
            if not self._values and not self._losses:
                return
            try:
                with self._database.write() as session:
                    self.write_pending(session)
            except sa.exc.SQLAlchemyError as error:
                if reason_to_wait(error) is None:
                    raise
                log.warning("Progress is buffered until the database can be used: %s", error)
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
        for step, loss in self._fixed_losses.items():
            progress.add_measures(session, self._lease.claim, step, {FIXED_LOSS: loss})
        if rose := self._rose:
            text = LOSS_ROSE.format(step=rose.step, rise=rose.rise)
            jobs.record(session, Run, self._run.key, NOTICE, text=text)

    def forget_pending(self) -> None:
        """Clear the buffered progress after it was committed."""
        self._resumed = self._resumed or bool(self._losses)
        self._values, self._losses, self._rates = {}, [], []
        self._fixed_losses, self._rose = {}, None

    def persist(self, write: Callable[[Any], T]) -> T:
        """Run `write(session)` in a transaction, once the database can be used."""

        def write_once() -> T:
            with self._database.write() as session:
                return write(session)

        for _ in range(CONFLICTS):
            try:
                return self.wait_out(write_once)
            except sa.exc.IntegrityError:
                log.warning("Could not write to the database, will retry.", exc_info=True)
                self._lease.lost.wait(RETRY_SECONDS)
        return self.wait_out(write_once)

    def wait_out(self, action: Callable[[], T], *, is_cancelable: bool = False) -> T:
        """The result of `action`, done again and again during an outage.

        Raises LostLease, GaveUp when the worker stops meanwhile, and CanceledWhileWaiting.
        """
        results: list[T] = []
        reasons: list[str] = []

        def on_wait(reason: str) -> None:
            reasons.append(reason)
            self.show_wait(reason)
            self.flush()
            if is_cancelable and self.read_flags().cancel:
                raise CanceledWhileWaiting

        self._lease.check()
        if not wait_out(lambda: results.append(action()), is_over=self._is_over, on_wait=on_wait):
            raise GaveUp
        if reasons:
            self.show_wait(None)
        return results[0]

    @property
    def must_leave(self) -> bool:
        """True once the worker has been stopping for `STOP_SECONDS`."""
        if not self._stopping.is_set():
            return False
        self._stopping_since = self._stopping_since or time.monotonic()
        return time.monotonic() - self._stopping_since > STOP_SECONDS

    def _is_over(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.must_leave:
            self._lease.check()
            self._lease.lost.wait(min(left, LOOK_SECONDS))
        self._lease.check()
        return self.must_leave

    def _record_phase(self, phase: Phase) -> None:
        self.set(phase=str(phase))
        if phase is Phase.WAITING or self._is_full:
            self._is_full = phase is Phase.WAITING
            self.show_wait(WAITS_FOR_SPACE if self._is_full else None)

    def _buffer_step(self, event: StepDone) -> None:
        if not self._losses:
            self._first_step = event.step
            if not self._resumed:
                self._flushed = 0.0  # write the first step immediately
            if not self._resumed and self._was_started:
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

    def _store_measures(self, step: int, values: dict[str, float]) -> None:
        claim = self._lease.claim
        self.persist(lambda session: progress.add_measures(session, claim, step, values))

    def _buffer_fixed_loss(self, event: FixedLoss) -> None:
        """Buffer the loss of the fixed images, and whether a person should be warned of it."""
        with self._lock:
            self._fixed_losses[event.step] = event.loss
            self.set(loss_rise=event.rise if event.is_high else None)
            if event.is_high and not self._is_high:
                self._rose = event
            self._is_high = event.is_high

    def _record_rollback(self, event: RolledBack) -> None:
        """Delete everything recorded after that step."""
        self.uploads.finish(give_up=lambda: self.must_leave)
        with self._lock:
            self._losses, self._rates, self._smoothed = [], [], None
            self._fixed_losses = {
                step: loss for step, loss in self._fixed_losses.items() if step <= event.step
            }
            self._rose, self._is_high = None, False
            self.set(step=event.step, loss_rise=None)

        def forget(session: Any) -> None:
            progress.write_progress(session, self._lease.claim, {"step": event.step})
            progress.forget_after(session, self._run.key, event.step)

        self.persist(forget)

    def _record_change(self, event: SettingsChanged) -> None:
        """Store what changed, before anything that comes after it."""
        claim = self._lease.claim
        now = self.persist(
            lambda session: changing.take_change(session, claim, event.number, event.change)
        )
        self._run.config, self._run.changes = now.config, now.changes

    def _store_notice(self, event: Notice) -> None:
        self.notices.append(event.text)
        self._record_text(WARNING if event.is_warning else NOTICE, event.text)

    def _record_wait(self, seconds: float) -> None:
        self._record_text(NOTICE, WAITED.format(waited=duration(seconds)))

    def _record_text(self, kind: str, text: str) -> None:
        claim = self._lease.claim

        def write(session: Any) -> None:
            jobs.require_owner(session, Run, claim)
            jobs.record(session, Run, claim.job_id, kind, text=text)

        self.persist(write)
