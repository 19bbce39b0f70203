"""Jobs of the io worker that remove what nothing needs: sweeps, and deletion of old drafts."""

from __future__ import annotations

import logging

from app.registry.access import idempotency
from app.registry.blobs import deletion as freeing
from app.registry.blobs.sweep import ADOPT_COMMAND, SweepSummary, sweep
from app.registry.deletion import renders
from app.registry.job_kinds.kinds import DeleteDraftsResult, SweepResult
from app.registry.jobs import quotas
from app.registry.likeness import similar
from app.registry.people import log as people_log
from worker.runtime.job_progress import IoWork, succeed

log = logging.getLogger(__name__)


def run(work: IoWork) -> None:
    """Move the files that nothing refers to into the trash, or report why not."""
    with work.cancelable(result={}) as progress:
        swept = sweep(work.database, work.store, on_item=lambda: progress(0, 1))
        if swept.report:
            log.warning("Nothing was swept. %s To go on, run `%s`.", swept.report, ADOPT_COMMAND)
        with work.database.write() as session:
            idempotency.delete_expired(session)
            similar.forget_searches(session)
            people_log.forget_addresses(session)
            quotas.forget_device_use(session)
            succeed(session, work.lease, _result(swept))


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


def delete_drafts(work: IoWork) -> None:
    """Delete the drafts that ended an hour ago, then the files that nothing else refers to."""
    freed = freeing.delete(work, renders.delete_old_drafts)
    work.succeed(DeleteDraftsResult(files=freed.files, size_bytes=freed.size_bytes))
