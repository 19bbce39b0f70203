"""Train jobs: one run at a time, each in a supervised trainer process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.base_models.speeds import record_speed, trained_layers
from app.registry.blobs import latents
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.owner import is_gone
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import BaseModel, BaseSpeed, ModelStatus
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from worker.core import starter
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.training.presets import Preset, preset_config
from worker.runtime import device, scratch
from worker.runtime.attempts import dry_run
from worker.runtime.attempts.attempt import Attempt
from worker.runtime.attempts.work import RunWork, TrainerTimeouts
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_progress import Handler
from worker.runtime.lease import Lease
from worker.runtime.messages import Calibrate, CalibrationReport
from worker.runtime.trainer_process import COMMAND, TrainerProcess, WarmTrainer

USUAL_IMAGES = 24
MAX_CALIBRATED_PARAMETERS = 300_000_000  # on a CPU, a step of a larger base takes minutes
REGISTRATION_SECONDS = 60.0
CALIBRATION_SECONDS = 8.0

log = logging.getLogger(__name__)


class TrainJobs:
    """Processes the runs of the `train` queue, and its dry runs while there are none."""

    table = Run
    machine = ""  # runs choose their precision themselves

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        *,
        timeouts: TrainerTimeouts | None = None,
        command: Sequence[str] = COMMAND,
        forks: bool = False,
        calibrates_after: float = CALIBRATION_SECONDS,
    ) -> None:
        """`forks`: the command costs milliseconds. `calibrates_after`: seconds without a run."""
        self.settings = settings
        self.database = database
        self.store = store
        self.timeouts = timeouts or TrainerTimeouts()
        self._command = command
        self._threads = device.threads(settings.threads)
        self.trainers = WarmTrainer(self._start_trainer, forks=forks)
        self._calibrates_after = calibrates_after
        self._calibration: threading.Timer | None = None
        handlers: dict[str, Handler] = {JobKind.DRY_RUN: partial(dry_run.run, self.trainers)}
        self._io_jobs = IoJobs(settings, database, store, handlers)
        self._erased = 0  # the last deletion whose encodings were deleted here, too

    @property
    def device(self) -> str:
        """Description of the device; empty while unknown."""
        return self.trainers.described_device

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the GPU, once a trainer has told it; None on a CPU."""
        return self.trainers.memory_bytes

    def prepare(self) -> None:
        """Warm a trainer with the most recent base model; calibrate later if never measured."""
        left = scratch.attempt_folders(self.settings.data_dir)
        with self.database.read() as session:
            running = select(Run.owner_token).where(Run.status == JobStatus.RUNNING)
            # also without those of a killed worker whose run was not taken over yet
            tokens = [token for token in session.exec(running) if token and not is_gone(token)]
            model = _newest_model(session)
        scratch.remove_abandoned(left, tokens)
        self._forget_erased()
        self.warm_next(model)

    def _forget_erased(self) -> None:
        """Delete the encodings of what was deleted for good since the last time."""
        folder = self.settings.data_dir
        self._erased = latents.forget_erased(self.database, folder, after=self._erased)

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        """Train a run to its end, or return it to the queue; or carry out a dry run."""
        self._cancel_calibration()
        if isinstance(job, IoJob):
            self._io_jobs.run(job, lease, stopping)
            return
        self._forget_erased()
        attempt = Attempt(
            RunWork(
                self.settings,
                self.database,
                self.store,
                self.trainers,
                self.timeouts,
                job,
                lease,
                stopping,
            )
        )
        try:
            attempt.supervise()
        finally:
            if not stopping.is_set():
                self.warm_next(attempt.model)

    def warm_next(self, model: Path | None) -> None:
        """Prepare a warm trainer for the next run, with the base model used last."""
        model = model or starter.PATH
        self.trainers.warm(model)
        # not at once: on few cores, the first image and the first run are waited for
        self._calibration = threading.Timer(self._calibrates_after, self._calibrate, [model])
        self._calibration.daemon = True
        self._calibration.start()

    def close(self) -> None:
        """End the warm trainer."""
        self._cancel_calibration()
        self.trainers.close()

    def _cancel_calibration(self) -> None:
        if self._calibration is not None:
            self._calibration.cancel()
            self._calibration = None

    def _calibrate(self, model: Path) -> None:
        try:
            with self.database.read() as session:
                if _is_measured(session, model):
                    return
            if self._calibration is not None:  # no run was taken meanwhile
                self.trainers.calibrate(model, _calibration_orders(model))
        except sa.exc.SQLAlchemyError as error:
            log.warning("Could not look up the speed of %s: %s", model, error)

    def _start_trainer(self) -> TrainerProcess:
        return TrainerProcess(
            logs=self.settings.data_dir / "logs",
            device=self.settings.device,
            threads=self._threads,
            on_calibrated=self._note_speed,
            command=self._command,
        )

    def _note_speed(self, found: CalibrationReport) -> None:
        """Store a measurement from a thread, because the base model may not be registered yet."""
        threading.Thread(target=self._write_speed, args=(found,), daemon=True).start()

    def _write_speed(self, found: CalibrationReport) -> None:
        deadline = time.monotonic() + REGISTRATION_SECONDS
        while time.monotonic() < deadline:
            try:
                with self.database.write() as session:
                    ready = select(BaseModel).where(BaseModel.status == ModelStatus.READY)
                    for base in session.exec(ready):
                        if base.location == found.model:
                            record_speed(
                                session,
                                base.key,
                                found.config,
                                resolution=found.resolution,
                                seconds_per_step=found.seconds_per_step,
                                trainable_parameters=found.trainable_parameters,
                            )
                            return
            except sa.exc.SQLAlchemyError as error:
                log.warning("Could not store the measured speed, will retry: %s", error)
            time.sleep(1.0)


def _newest_model(session: Session) -> Path:
    """The base model of the newest run if it is still usable, else the embedded one."""
    ready = (
        select(BaseModel)
        .join(Run, col(Run.base_model_id) == col(BaseModel.id))
        .where(BaseModel.status == ModelStatus.READY)
        .order_by(col(Run.id).desc())
        .limit(1)
    )
    newest = session.exec(ready).first()
    return newest.location if newest is not None else starter.PATH


def _is_measured(session: Session, model: Path) -> bool:
    """True if a step on this base model was ever measured."""
    measured = select(BaseModel).where(
        select(BaseSpeed.id).where(BaseSpeed.base_model_id == BaseModel.id).exists()
    )
    return any(base.location == model for base in session.exec(measured))


def _calibration_orders(model: Path) -> list[Calibrate]:
    """A measurement for each kind of step that the presets take on this base model."""
    try:
        info = inspect_base(model)
    except BaseModelError:
        return []
    if sum(info.parameters.values()) > MAX_CALIBRATED_PARAMETERS:
        return []
    orders: dict[tuple[int, str], Calibrate] = {}
    for preset in Preset:
        config = preset_config(
            preset, resolution=info.resolution, images=USUAL_IMAGES, family=info.family
        )
        key = (config.batch_size, trained_layers(config))
        orders.setdefault(key, Calibrate(config, info.resolution))
    return list(orders.values())
