"""The io jobs that look at a model that was added: what it is, and whether it can be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.base_models.inspection import InspectionResult, write_inspection, write_unusable
from app.registry.caption_models import results
from app.registry.db import Database
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.jobs import IoJob
from worker.core.bases.family import BaseModelError
from worker.core.captioning.local.inspect import UnusableModel
from worker.runtime.inspection.limited import inspect_caption_model_in_time, inspect_in_time
from worker.runtime.job_progress import JobCanceled, JobWatch, RefusedError, WorkerStopping
from worker.runtime.lease import Lease

CHECK_CANCELED = "The check of this {model} was canceled. Check it again."
REMOVED = "This caption model was removed, so it was not checked."

WriteUnusable = Callable[[Session, int, str], None]


class InspectionJobs:
    """Inspects base models and checks caption models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def inspect_base(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Read configs and headers of a base model."""
        assert job.subject_id is not None
        with self._database.read() as session:
            base = base_models.get_base_model(session, job.subject_id)

        def inspect(check: JobWatch) -> Callable[[Session], None]:
            found = InspectionResult.of(inspect_in_time(base.location, check=check))
            return lambda session: write_inspection(session, base.key, found)

        def give_reason(session: Session, sentence: str) -> None:
            write_unusable(session, base.key, sentence)

        self._inspect("base model", inspect, give_reason, lease, stopping)

    def check_caption_model(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Read config and headers of a caption model. Raises RefusedError if it was removed."""
        assert job.subject_id is not None
        with self._database.read() as session:
            model = session.get(CaptionModel, job.subject_id)
        if model is None:
            raise RefusedError("gone", REMOVED)

        def inspect(check: JobWatch) -> Callable[[Session], None]:
            found = inspect_caption_model_in_time(model.location, check=check)
            return lambda session: results.write_checked(session, model.key, found)

        def give_reason(session: Session, sentence: str) -> None:
            results.write_unusable(session, model.key, sentence)

        self._inspect("caption model", inspect, give_reason, lease, stopping)

    def _inspect(
        self,
        model: str,
        inspect: Callable[[JobWatch], Callable[[Session], None]],
        write_reason: Callable[[Session, str], None],
        lease: Lease,
        stopping: threading.Event,
    ) -> None:
        """Carry out `inspect`, which gives what to write of a model that can be used."""
        try:
            write = inspect(JobWatch(self._database, lease, stopping))
        except WorkerStopping:
            with self._database.write() as session:
                jobs.give_back(session, IoJob, lease.claim)
        except JobCanceled:
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.CANCELED)
                write_reason(session, CHECK_CANCELED.format(model=model))
        except (BaseModelError, UnusableModel) as error:
            code = model.replace(" ", "_")
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.FAILED, error=str(error), error_code=code)
                write_reason(session, str(error))
        else:
            with self._database.write() as session:
                self._finish(session, lease, JobStatus.SUCCEEDED)
                write(session)

    def _finish(self, session: Session, lease: Lease, status: JobStatus, **values: Any) -> None:
        jobs.finish(session, IoJob, lease.claim, status, **values)
