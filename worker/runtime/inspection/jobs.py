"""The io jobs that look at a model that was added: what it is, and whether it can be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from app.registry.added_models.kinds import ModelKind
from app.registry.added_models.service import write_unusable
from app.registry.base_models.service import BASE_MODELS, write_inspection
from app.registry.caption_models.service import CAPTION_MODELS, write_checked
from app.registry.db import Database
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.tables.jobs import IoJob
from worker.core.bases.family import BaseModelError
from worker.core.captioning.local.inspect import UnusableModel
from worker.runtime.inspection.limited import inspect_caption_model_in_time, inspect_in_time
from worker.runtime.job_progress import JobCanceled, JobWatch, RefusedError, WorkerStopping
from worker.runtime.lease import Lease

CHECK_CANCELED = "The check of this {model} was canceled. Check it again."
REMOVED = "This {model} was removed, so it was not checked."
Info = TypeVar("Info")


class InspectionJobs:
    """Inspects base models and checks caption models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def inspect_base(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Read configs and headers of a base model. Raises RefusedError if it was removed."""
        self._inspect(BASE_MODELS, inspect_in_time, write_inspection, job, lease, stopping)

    def check_caption_model(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Read config and headers of a caption model. Raises RefusedError if it was removed."""
        inspect = inspect_caption_model_in_time
        self._inspect(CAPTION_MODELS, inspect, write_checked, job, lease, stopping)

    def _inspect(
        self,
        kind: ModelKind[Any],
        inspect: Callable[..., Info],
        write: Callable[[Session, int, Info], None],
        job: IoJob,
        lease: Lease,
        stopping: threading.Event,
    ) -> None:
        """Write the facts that `inspect` finds in the files of a model, or why it is unusable."""
        assert job.subject_id is not None
        with self._database.read() as session:
            model = session.get(kind.table, job.subject_id)
        if model is None:
            raise RefusedError("gone", REMOVED.format(model=kind.name))
        try:
            info = inspect(model.location, check=JobWatch(self._database, lease, stopping))
        except WorkerStopping:
            with self._database.write() as session:
                jobs.give_back(session, IoJob, lease.claim)
        except JobCanceled:
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.CANCELED)
                write_unusable(session, kind, model.key, CHECK_CANCELED.format(model=kind.name))
        except (BaseModelError, UnusableModel) as error:
            code = kind.name.replace(" ", "_")
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.FAILED, error=str(error), error_code=code)
                write_unusable(session, kind, model.key, str(error))
        else:
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.SUCCEEDED)
                write(session, model.key, info)

    def _finish(self, session: Session, lease: Lease, status: JobStatus, **values: Any) -> None:
        jobs.finish(session, IoJob, lease.claim, status, **values)
