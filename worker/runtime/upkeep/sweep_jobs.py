"""Sweep jobs of the io worker: delete the files that nothing refers to."""

from __future__ import annotations

import threading
from pathlib import Path

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import SweepResult
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from app.registry.storage.store import BlobStore
from app.registry.sweep import sweep
from worker.runtime.job_progress import cancellable
from worker.runtime.lease import Lease


class SweepJobs:
    """Processes sweeps."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Delete the files that nothing refers to."""
        with cancellable(self._database, lease, stopping, result={}) as progress:
            swept = sweep(self._database, self._store, on_item=lambda: progress(0, 1))
            result = SweepResult(files=swept.files, size_bytes=swept.size_bytes).stored()
            with self._database.write() as session:
                jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
