"""Jobs of the io worker that remove what nothing needs: sweeps, and deletion of old drafts."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from app.registry.access import idempotency
from app.registry.blobs import deletion as freeing
from app.registry.blobs.sweep import ADOPT_COMMAND, SweepSummary, sweep
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.deletion import drafts
from app.registry.job_kinds.kinds import DeleteDraftsResult, SweepResult
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.job_progress import cancelable, succeed
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
            with self._database.write() as session:
                idempotency.delete_expired(session)
                succeed(session, lease, _result(swept))


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


@dataclass(frozen=True)
class DraftJobs:
    """Deletes the drafts that ended an hour ago."""

    settings: Settings
    database: Database
    store: BlobStore

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Delete the rows, then the files that nothing else refers to."""
        freed = freeing.delete(self, drafts.delete_old_drafts)
        result = DeleteDraftsResult(files=freed.files, size_bytes=freed.size_bytes)
        with self.database.write() as session:
            succeed(session, lease, result)
