"""An io worker deletes old drafts of the playground, with the files that nothing else shows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.registry.db import utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import claim_next, finish
from app.registry.renders import drafts
from app.registry.renders.requests import RenderRequest
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderImage
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.runtime.io_jobs import IoJobs
from worker.runtime.upkeep import clock


def ended_draft(registry: Registry, *images: str) -> int:
    """A draft that ended two hours ago with these images."""
    request = RenderRequest(prompt="a fox", count=len(images))
    with registry.database.write() as session:
        drafts.create_draft(session, request, registry.store, slot="tab")
        row, claim = claim_next(session, Render, lease_seconds=5) or pytest.fail("no draft")
        for index, sha256 in enumerate(images):
            session.add(RenderImage(render_id=row.key, index=index, seed=index, sha256=sha256))
        finish(session, Render, claim, JobStatus.SUCCEEDED)
        row.finished_at = utcnow() - timedelta(hours=2)
    return row.key


def test_a_worker_deletes_old_drafts_soon_after_its_start(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clock, "FIRST_LOOK_SECONDS", 0.01)
    alone, shown = (registry.store.put_bytes(text).sha256 for text in (b"draft", b"shared"))
    ended_draft(registry, alone, shown)
    kept = ended_draft(registry, shown)
    with registry.database.write() as session:
        drafts.keep_draft(session, kept)
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)) as loop:
        (job,) = wait_for(lambda: registry.rows(IoJob, kind=JobKind.DELETE_DRAFTS))
        loop.wake()
        done = registry.until_final(IoJob, job.key)
    assert (done.status, done.result) == ("succeeded", {"files": 1, "size_bytes": 5})
    assert [row.key for row in registry.rows(Render)] == [kept]
    assert (registry.store.exists(alone), registry.store.exists(shown)) == (False, True)
