"""io jobs that go to the Hugging Face Hub: each is carried out by a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.base_models import downloads
from app.base_models.inspection import write_unusable
from app.config import Settings
from app.db import Database
from app.jobs import service as jobs
from app.jobs.models import DOWNLOAD_BASE, IoJob
from app.jobs.states import JobStatus
from app.storage import BlobStore
from worker.hub.orders import Answer
from worker.runtime.hub_process import Broken, BrokenOff, HubFailed, carry_out, order
from worker.runtime.lease import Lease

Work = Callable[[IoJob, Lease, Path, threading.Event], None]
OFF = "The Hub may not be asked from this worker: BRUSHWORK_HUB is off."


class HubWork:
    """The kinds of io jobs that may go out."""

    def __init__(self, settings: Settings, database: Database, store: BlobStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self.kinds: dict[str, Work] = {DOWNLOAD_BASE: self._download_base}

    def _download_base(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        base_id = job.subject_id
        assert base_id is not None
        home = self._settings.hub_models / str(job.args["repo"]).replace("/", "--")
        try:
            answer = self._ask("download_base", job, lease, stopping, folder=str(home))
        except HubFailed as error:
            with self._database.write() as session:
                self._end(session, lease, JobStatus.FAILED, error=error)
                write_unusable(session, base_id, str(error))
        except BrokenOff as broken:
            with self._database.write() as session:
                self._break_off(session, lease, broken)
                if broken.why is Broken.CANCELED:
                    downloads.write_stopped(session, base_id, session.get_one(IoJob, job.key))
        else:
            with self._database.write() as session:
                self._end(session, lease, JobStatus.SUCCEEDED)
                downloads.write_downloaded(
                    session, base_id, str(answer.path), answer.values["commit"]
                )

    def _ask(
        self, what: str, job: IoJob, lease: Lease, stopping: threading.Event, **values: Any
    ) -> Answer:
        if self._settings.hub == "off":
            raise HubFailed("hub_off", OFF)

        def write_progress(progress: dict[str, Any]) -> None:
            with self._database.write() as session:
                jobs.update_owned(session, IoJob, lease.claim, result=progress)

        return carry_out(
            order(self._settings, what, **job.args, **values),
            self._database,
            lease,
            stopping,
            on_progress=write_progress,
        )

    def _break_off(self, session: Session, lease: Lease, broken: BrokenOff) -> None:
        if broken.why is Broken.CANCELED:
            self._end(session, lease, JobStatus.CANCELED)
        else:
            jobs.give_back(session, IoJob, lease.claim)

    def _end(
        self,
        session: Session,
        lease: Lease,
        status: JobStatus,
        *,
        error: HubFailed | None = None,
        **values: Any,
    ) -> None:
        if error is not None:
            values |= {"error": str(error), "error_code": error.code}
        jobs.finish(session, IoJob, lease.claim, status, **values)
