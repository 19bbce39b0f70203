"""One attempt at a run: orders, wishes, watchdog, and what becomes of the run at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.registry.adapters.versions.create_version import future_slug
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.db import Database
from app.registry.errors import AppError, StorageFullError
from app.registry.jobs import service as jobs
from app.registry.jobs.states import JobStatus
from app.registry.runs import progress
from app.registry.runs.models import WARNING, Run
from app.registry.runs.progress import Wishes
from app.registry.storage.store import BlobStore, StorageUnavailable
from worker.core.training.config import TrainConfig
from worker.core.training.events import Arithmetic, Control
from worker.core.training.fallback import reduce_memory_use
from worker.runtime import scratch
from worker.runtime.lease import Lease
from worker.runtime.messages import (
    Alive,
    Exported,
    Failed,
    Message,
    Ready,
    Train,
    Trained,
    Wish,
)
from worker.runtime.report import Reporter
from worker.runtime.run_inputs import RunInputs
from worker.runtime.save_result import TrainingResult
from worker.runtime.trainer_process import Ended, TrainerProcess, WarmTrainer

POLL_SECONDS = 0.1
LOOK_SECONDS = 0.3
RETRYABLE_CODES = frozenset({"trainer_error"})  # failures that another attempt may not meet
log = logging.getLogger(__name__)

CRASHED = (
    "The training process was killed or crashed (exit code {code}). If that goes on, the machine "
    "may be short of memory: choose a smaller batch, or “Gradient checkpointing”."
)
STALLED = "The training did nothing for {minutes:.0f} minutes, so it was ended."
NO_MEMORY = (
    "There was not enough memory for this training, even with a batch of one picture and “Save "
    "memory” on. Choose a smaller resolution or rank, or another base model."
)
NO_START = (
    "The checkpoint that this run goes on from is damaged or gone, so nothing was trained. Go on "
    "from another one, or train anew."
)


@dataclass(frozen=True)
class Patience:
    """How long a trainer may take to answer before it is killed, in seconds."""

    cancel: float = 8.0
    drain: float = 25.0
    stall: float = 900.0


@dataclass(frozen=True)
class TrainingHost:
    """What every attempt on this worker shares."""

    data_dir: Path
    database: Database
    store: BlobStore
    trainers: WarmTrainer
    patience: Patience


class Unusable(Exception):
    """The run cannot be trained as it is; the sentence says why."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Attempt:
    """Supervises the trainer process of one claimed run."""

    def __init__(
        self,
        host: TrainingHost,
        run: Run,
        lease: Lease,
        stopping: threading.Event,
    ) -> None:
        self._data_dir = host.data_dir
        self._database = host.database
        self._store = host.store
        self._trainers = host.trainers
        self._patience = host.patience
        self._run = run
        self._lease = lease
        self._stopping = stopping
        self._reporter = Reporter(self._database, self._store, run, lease)
        self._control = Control.CONTINUE
        self._deadline: float | None = None
        self._heard = time.monotonic()
        self._looked = 0.0
        self._result: TrainingResult | None = None
        self.model: Path | None = None

    def supervise(self) -> None:
        """Train until the run has moved on. Raises LostLease when it is not ours any more."""
        token = self._lease.claim.token
        try:
            inputs = self._inputs()
            with (
                scratch.attempt_folder(self._data_dir, self._run.key, token) as folder,
                self._trainer(folder, inputs) as trainer,
            ):
                while not self._step(trainer, inputs):
                    pass
        except Unusable as error:
            self._fail(error.code, str(error))
        except StorageUnavailable as error:
            self._retry("storage", error.detail)
        except StorageFullError as error:
            self._fail("disk_full", error.detail)
        except AppError as error:
            self._fail(error.code, error.detail)

    def _inputs(self) -> RunInputs:
        with self._database.read() as session:
            base = session.get_one(BaseModel, self._run.base_model_id)
            try:
                base_models.require_ready(base)
            except AppError as error:
                raise Unusable("base_model", error.detail) from error
            self.model = base_models.location(base)
            return RunInputs(
                base,
                session.get_one(Dataset, self._run.dataset_id),
                session.get_one(DatasetVersion, self._run.dataset_version_id),
                session.get(DatasetVersion, self._run.regularisation_version_id or 0),
                future_slug(session, self._run.name),
            )

    @contextmanager
    def _trainer(self, folder: Path, inputs: RunInputs) -> Iterator[TrainerProcess]:
        """A trainer at work on this run; killed at the end, whatever happened."""
        assert self.model is not None
        trainer = self._trainers.take(self.model)
        try:
            store = self._store
            beside = inputs.regularisation
            scratch.lay_out_pictures(
                store,
                inputs.version.items,
                folder / "data",
                folder / "blobs",
                regularisation=beside.items if beside else (),
            )
            with self._database.read() as session:
                rows = progress.checkpoints(session, self._run.key)
                samples = progress.samples_until(session, self._run.key, rows)
            resumed = scratch.restore_checkpoint(store, rows, folder / "out")
            if self._run.parent_id is not None and not resumed:
                raise Unusable("checkpoint", NO_START)
            scratch.restore_samples(store, samples, folder / "out", folder / "blobs")
            self._reporter.set(phase="preparing", step=resumed, device=trainer.device or None)
            self._reporter.flush(now=True)
            trainer.send(
                Train(
                    model=self.model,
                    data=folder / "data",
                    out=folder / "out",
                    cache=self._data_dir / "cache" / "latents",
                    config=TrainConfig.model_validate(self._run.config),
                    # all are of this run or what it goes on from, maybe with more memory
                    continues=bool(rows),
                    arithmetic=Arithmetic(**known) if (known := self._run.arithmetic) else None,
                )
            )
            self._trainers.warm_beside(self.model)
            yield trainer
        finally:
            trainer.kill()

    def _step(self, trainer: TrainerProcess, inputs: RunInputs) -> bool:
        """Take one message or look around; True when the run has moved on."""
        message = trainer.receive(POLL_SECONDS)
        if isinstance(message, Ended):
            return self._ended(trainer, message)
        if message is not None:
            self._heard = time.monotonic()
            if self._take(trainer, inputs, message):
                return True
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            return self._look_around(trainer)
        return False

    def _take(self, trainer: TrainerProcess, inputs: RunInputs, message: Message) -> bool:
        if isinstance(message, Ready):
            self._reporter.set(device=message.device)
        elif isinstance(message, Trained):
            return self._trained(trainer, inputs, message)
        elif isinstance(message, Exported):
            assert self._result is not None
            self._result.publish(message)
            trainer.finish()
            return True
        elif isinstance(message, Failed):
            return self._failed(message, trainer)
        elif not isinstance(message, Alive):
            self._reporter.take(message)  # type: ignore[arg-type] # what is left are events
            self._reporter.flush()
        return False

    def _trained(self, trainer: TrainerProcess, inputs: RunInputs, message: Trained) -> bool:
        self._reporter.set(
            step=message.steps,
            trainable_parameters=message.trainable_parameters,
            base_parameters=message.base_parameters,
            peak_memory_bytes=message.peak_memory_bytes,
        )
        self._reporter.flush(now=True)
        if message.outcome == "interrupted":
            self._give_back()
            return True
        if message.path is None:
            self._move(JobStatus.CANCELED)
            return True
        self._deadline = None  # cancelled too late: it stays succeeded
        self._control = Control.CONTINUE
        self._reporter.set(phase="saving")
        self._result = TrainingResult(
            self._database, self._store, self._run, self._lease, self._reporter, inputs, message
        )
        trainer.send(self._result.export_order())
        return False

    def _look_around(self, trainer: TrainerProcess) -> bool:
        self._lease.check()
        self._reporter.flush()
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            log.warning("run %s: the trainer did not stop in time.", self._run.key)
            trainer.kill()
            if self._control is Control.SAVE_AND_EXIT:
                self._give_back()
            else:
                self._move(JobStatus.CANCELED)
            return True
        if now - self._heard > self._patience.stall:
            trainer.kill()
            minutes = self._patience.stall / 60
            self._retry("stalled", STALLED.format(minutes=minutes), trainer.log_tail())
            return True
        self._pass_wishes(trainer)
        return False

    def _pass_wishes(self, trainer: TrainerProcess) -> None:
        try:
            with self._database.read() as session:
                wishes = progress.read_wishes(session, self._lease.claim)
        except sa.exc.OperationalError:
            wishes = Wishes(cancel=False, stop=False, sample=False, save=False)
        if self._result is not None:
            return
        if wishes.cancel:
            self._steer(trainer, Control.CANCEL, patience=self._patience.cancel)
        elif self._stopping.is_set():
            self._steer(trainer, Control.SAVE_AND_EXIT, patience=self._patience.drain)
        elif wishes.stop:
            self._steer(trainer, Control.STOP_AND_KEEP, patience=None)
        if wishes.sample or wishes.save:
            trainer.send(Wish(sample_now=wishes.sample, save_now=wishes.save))
            self._reporter.set(sample_requested=False, save_requested=False)
            self._reporter.flush(now=True)

    def _steer(self, trainer: TrainerProcess, control: Control, *, patience: float | None) -> None:
        if self._control is control:
            return
        self._control = control
        self._deadline = None if patience is None else time.monotonic() + patience
        trainer.send(Wish(control=control))

    def _ended(self, trainer: TrainerProcess, end: Ended) -> bool:
        """The process is gone without a last word."""
        if self._control is Control.CANCEL:
            self._move(JobStatus.CANCELED)
        else:
            self._retry("trainer_crashed", CRASHED.format(code=end.exit_code), trainer.log_tail())
        return True

    def _failed(self, failed: Failed, trainer: TrainerProcess) -> bool:
        if failed.code == "out_of_memory":
            self._out_of_memory(failed)
        elif failed.expected:
            self._fail(failed.code, failed.error, failed.trace)
        else:
            self._retry(failed.code, failed.error, failed.trace + trainer.log_tail())
        return True

    def _out_of_memory(self, failed: Failed) -> None:
        """Once more with one thing given up; the same again would only fail again.

        It does not count as an attempt: the steps down are few, and each is another training.
        """
        found = reduce_memory_use(TrainConfig.model_validate(self._run.config))
        if found is None:
            self._fail(failed.code, NO_MEMORY, failed.trace)
            return
        config, sentence = found
        claim = self._lease.claim

        def write(session: Any) -> None:
            rows = progress.checkpoints(session, self._run.key)
            where = f" from step {rows[0].step:,}" if rows else ""
            text = f"There was not enough memory, so the run starts again{where}. {sentence}"
            jobs.record(session, Run, self._run.key, WARNING, text=text)
            jobs.update_owned(
                session, Run, claim, config=config.model_dump(mode="json"), arithmetic={}
            )
            jobs.give_back(session, Run, claim)

        self._end(write)

    def _fail(self, code: str, error: str, trace: str = "") -> None:
        self._move(JobStatus.FAILED, error_code=code, error=error, error_trace=trace or None)

    def _retry(self, code: str, error: str, trace: str = "") -> None:
        claim = self._lease.claim
        self._end(
            lambda session: jobs.give_up_or_retry(
                session, Run, claim, code=code, error=error, trace=trace
            )
        )

    def _give_back(self) -> None:
        claim = self._lease.claim
        self._end(lambda session: jobs.give_back(session, Run, claim))

    def _move(self, status: JobStatus, **values: Any) -> None:
        claim = self._lease.claim
        self._end(lambda session: jobs.finish(session, Run, claim, status, **values))

    def _end(self, write: Any) -> None:
        """The last progress and the move, in one transaction."""

        def both(session: Any) -> None:
            self._reporter.set(phase=None)
            self._reporter.write_pending(session)
            write(session)

        self._reporter.persist(both)
        self._lease.release()
