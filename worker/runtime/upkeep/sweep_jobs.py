"""Sweep jobs of the io worker: what nothing refers to goes to the trash; old answers go, too."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from app.registry.access import idempotency
from app.registry.blobs.sweep import ADOPT_COMMAND, SweepSummary, sweep
from app.registry.db import Database
from app.registry.job_kinds.kinds import SweepResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.job_progress import cancelable
from worker.runtime.lease import Lease

log = logging.getLogger(__name__)


class SweepJobs:
    """Processes sweeps."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Move the files that nothing refers to into the trash, or report why not."""
        with cancelable(self._database, lease, stopping, result={}) as progress:
            swept = sweep(self._database, self._store, on_item=lambda: progress(0, 1))
            if swept.report:
                log.warning(
                    "Nothing was swept. %s To go on, run `%s`.", swept.report, ADOPT_COMMAND
                )
            result = _result(swept).stored()
            with self._database.write() as session:
                idempotency.delete_expired(session)
                jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)


def _result(swept: SweepSummary) -> SweepResult:
    """The result of the job, without what did not happen."""
    more = {
        "emptied_files": swept.emptied.files,
        "emptied_bytes": swept.emptied.size_bytes,
        "brought_back": swept.brought_back,
        "report": swept.report,
    }
    happened = {name: value for name, value in more.items() if value}
    return SweepResult.model_validate(
        {"files": swept.files, "size_bytes": swept.size_bytes, **happened}
    )
