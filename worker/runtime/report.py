"""Writes the events of a training to the registry: progress, metrics, samples, checkpoints."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.jobs import service as jobs
from app.registry.runs import progress
from app.registry.runs.checkpoint_adapters import NewAdapter, add_adapter
from app.registry.runs.models import NOTICE, WARNING, Run
from app.registry.runs.progress import (
    FIXED_LOSS,
    HELD_OUT,
    MetricPoints,
    NewSample,
    RunFlags,
)
from app.registry.storage.store import Blob, BlobStore
from app.registry.thumbnails.make import make_thumbnails
from app.registry.wording import duration
from worker.core.lora_files.header import HeaderError, tensor_hash
from worker.core.training.config import TrainConfig
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
    StepDone,
    ValidationDone,
)
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import (
    WAITS_FOR_SPACE,
    CanceledWhileWaiting,
    GaveUp,
    reason_to_wait,
    wait_out,
)
from worker.runtime.outages.uploads import Upload, Uploads
from worker.runtime.scratch import HELD, hold_adapter, hold_checkpoint, pack_checkpoint

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

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        run: Run,
        lease: Lease,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        self._store = store
        self._run = run
        self._lease = lease
        self._stopping = stopping
        self._lock = threading.RLock()  # of what is buffered; taken before the database is
        self._is_full = False  # the trainer waits for space
        self._held = 0  # checkpoints kept aside so far
        self._is_high = run.loss_rise is not None
        self._rose: FixedLoss | None = None
        self._fixed_losses: dict[int, float] = {}
        self._stopping_since: float | None = None
        self.uploads = Uploads(on_wait=self.show_wait, on_late=self._record_wait)
        self._was_started = run.attempt > 1 or run.step > 0
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
            self._record_step(event)
        elif isinstance(event, SampleSaved):
            self._store_sample(event)
        elif isinstance(event, CheckpointSaved):
            self._store_checkpoint(event)
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

    def wait_out(self, action: Callable[[], T], *, is_cancellable: bool = False) -> T:
        """The result of `action`, done again and again during an outage.

        Raises LostLease, GaveUp when the worker stops meanwhile, and CanceledWhileWaiting.
        """
        results: list[T] = []
        reasons: list[str] = []

        def on_wait(reason: str) -> None:
            reasons.append(reason)
            self.show_wait(reason)
            self.flush()
            if is_cancellable and self.read_flags().cancel:
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

    def _record_step(self, event: StepDone) -> None:
        with self._lock:
            self._buffer_step(event)

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

    def _store_sample(self, event: SampleSaved) -> None:
        stored: list[NewSample] = []

        def store() -> None:
            self._require_owner()
            try:
                stored.append(self._put_sample(event))
            except FileNotFoundError:  # the trainer rolled back, or the disk is full
                log.warning("The sample %s is missing.", event.path)

        def write() -> None:
            if stored:
                with self._database.write() as session:
                    progress.add_sample(session, self._lease.claim, stored[0])

        self.uploads.add(Upload((store, write)))

    def _put_sample(self, event: SampleSaved) -> NewSample:
        blob = self._store.put_file(event.path)
        return NewSample(
            step=event.step,
            prompt_index=event.prompt_index,
            prompt=event.prompt,
            seed=event.seed,
            sha256=blob.sha256,
            thumbnail=make_thumbnails(self._store, blob, event.path),
        )

    def _require_owner(self) -> None:
        with self._database.read() as session:
            progress.read_run_flags(session, self._lease.claim)

    def _store_checkpoint(self, event: CheckpointSaved) -> None:
        self._held += 1
        held = event.path.parents[2] / HELD / str(self._held)  # beside the trainer's own folder
        folder = hold_checkpoint(event.path, held)
        self._store_adapter(event, held.with_suffix(".safetensors"))
        packed: list[Blob] = []

        def store() -> None:
            self._require_owner()
            try:
                packed.append(pack_checkpoint(self._store, folder, run_id=self._run.key))
            except FileNotFoundError:  # the trainer already deleted it, as it keeps only the newest
                log.warning("The checkpoint %s is missing.", event.path)

        def write() -> None:
            if packed:
                self._write_checkpoint(event, packed[0])

        discard = partial(shutil.rmtree, held, ignore_errors=True)
        can_skip = not event.is_requested
        self.uploads.add(Upload((store, write), is_checkpoint=can_skip, discard=discard))

    def _store_adapter(self, event: CheckpointSaved, held: Path) -> None:
        """Store the adapter of a checkpoint; it waits longer than the state, which is larger."""
        path = hold_adapter(event.path, held)
        stored: list[NewAdapter] = []

        def store() -> None:
            self._require_owner()
            try:
                tensors = tensor_hash(path)
                blob = self._store.put_file(path)
            except (FileNotFoundError, HeaderError) as error:  # not held, or damaged on the disk
                log.warning("The adapter of step %s is not kept: %s", event.step, error)
                return
            stored.append(
                NewAdapter(event.step, blob.sha256, blob.size, tensors, event.is_requested)
            )

        def write() -> None:
            if not stored:
                return
            self.flush(now=True)
            with self._database.write() as session:
                keep = self._config.keep_adapters
                add_adapter(session, self._lease.claim, stored[0], keep=keep)

        discard = partial(held.unlink, missing_ok=True)
        self.uploads.add(Upload((store, write), discard=discard))

    def _write_checkpoint(self, event: CheckpointSaved, blob: Blob) -> None:
        self.flush(now=True)  # a resumed run must find the metrics up to here
        with self._database.write() as session:
            unused = progress.add_checkpoint(
                session,
                self._lease.claim,
                step=event.step,
                sha256=blob.sha256,
                size_bytes=blob.size,
                keep=self._config.keep_checkpoints,
                is_requested=event.is_requested,
            )
        for sha256 in unused:
            with contextlib.suppress(OSError, AppError):  # the sweep finds it
                self._store.delete(sha256)
