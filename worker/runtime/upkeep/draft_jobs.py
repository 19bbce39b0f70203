"""Jobs of the io worker that delete the old drafts of the playground, with their files."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from app.registry.blobs import deletion as freeing
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.deletion import drafts
from app.registry.job_kinds.kinds import DeleteDraftsResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.lease import Lease


@dataclass(frozen=True)
class DraftJobs:
    """Deletes the drafts that ended an hour ago."""

    settings: Settings
    database: Database
    store: BlobStore

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Delete the rows, then the files that nothing else refers to."""
        freed = freeing.delete(self, drafts.delete_old_drafts)
        result = DeleteDraftsResult(files=freed.files, size_bytes=freed.size_bytes).stored()
        with self.database.write() as session:
            jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
