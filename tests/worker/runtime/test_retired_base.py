"""Jobs of an older version's embedded base model that are still queued when a new one starts."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlmodel import select

import app.registry.base_models.service as embedded
from app.registry.base_models.service import inspect_embedded
from app.registry.job_kinds.kinds import ExtractAdapterArgs, FuseAdapterArgs, FuseOutput
from app.registry.jobs import service as jobs
from app.registry.renders.requests import RenderRequest
from app.registry.renders.service import create_render
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from tests.worker.runtime.job_loops import Registry
from worker.core.words import FusedDtype, FuseLayout
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.render_jobs import RenderJobs


def queue_jobs(registry: Registry) -> dict[type[Any], list[int]]:
    """One job of every kind that reads the base model."""
    run_id = registry.new_run()
    fuse = FuseAdapterArgs(
        name="Fused",
        parts=(),
        layout=FuseLayout.SINGLE,
        dtype=FusedDtype.FP16,
        keep=FuseOutput.DOWNLOAD,
    )
    with registry.database.write() as session:
        render = create_render(session, RenderRequest(prompt="castle"), registry.store)
        extract = ExtractAdapterArgs(name="More", tuned_id=registry.base_id, rank=4)
        tools = [
            jobs.enqueue_io(session, args, subject_id=registry.base_id) for args in (fuse, extract)
        ]
        return {Run: [run_id], Render: [render.key], IoJob: [tool.key for tool in tools]}


@pytest.mark.parametrize("is_started", [True, False], ids=["web-first", "worker-first"])
def test_a_queued_job_of_the_old_base_fails_with_the_reason(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, is_started: bool
) -> None:
    """Also when a worker of the new version starts before the web server, which retires the row."""
    monkeypatch.setattr(embedded, "find_damage", lambda: None)
    queued = queue_jobs(registry)
    with registry.database.write() as session:
        base = session.get_one(BaseModel, registry.base_id)
        base.fingerprint, base.resolution = "a" * 64, 64
        session.add(base)
        if is_started:
            inspect_embedded(session)
            for job in session.exec(select(IoJob).where(IoJob.kind == "inspect_base")):
                session.delete(job)
    for work in (
        registry.train_jobs(),
        RenderJobs(registry.settings, registry.database, registry.store),
        IoJobs(registry.settings, registry.database, registry.store),
    ):
        table = work.table
        for key in queued[table]:
            with registry.database.write() as session:
                claimed = jobs.claim_next(session, table, lease_seconds=60)
            assert claimed is not None
            with Lease(registry.database, table, claimed[1], seconds=60) as lease:
                work.run(claimed[0], lease, threading.Event())
            found = registry.row(table, key)
            assert found.status == "failed"
            assert "is no longer shipped with Brushwork" in found.error
        work.close()
