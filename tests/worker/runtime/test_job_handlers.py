"""The io worker has a handler for every kind of job, and survives damaged rows."""

from __future__ import annotations

from app.registry.base_models import downloads
from app.registry.hub_source import HubSource
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import JOB_TYPES, JobKind, SweepArgs
from app.registry.jobs.models import IoJob
from tests.worker.runtime.job_loops import Registry
from worker.runtime.io_jobs import IoJobs

WITHOUT_ARGUMENTS = {JobKind.INSPECT_BASE, JobKind.SWEEP, JobKind.MAKE_THUMBNAILS}


def io_work(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def test_every_kind_has_a_handler_and_every_handler_a_kind(registry: Registry) -> None:
    assert set(io_work(registry).handlers) == set(JOB_TYPES)


def test_damaged_arguments_fail_the_job_and_the_worker_goes_on(registry: Registry) -> None:
    kinds = [kind for kind in JobKind if kind not in WITHOUT_ARGUMENTS]
    with registry.database.write() as session:
        damaged = [
            jobs.enqueue(session, IoJob(kind=kind, subject_id=1, args={"rank": "much"})).key
            for kind in kinds
        ]
        after = jobs.enqueue_io(session, SweepArgs(), priority=1).key
    with registry.working(io_work(registry)):
        ended = [registry.until_final(IoJob, key) for key in damaged]
        assert registry.until_final(IoJob, after).status == "succeeded"
    for job in ended:
        assert (job.status, job.error_code, job.attempt) == ("failed", "damaged_job", 1), job.kind
        assert job.error.startswith("The stored arguments of this job are damaged. ")


def test_a_damaged_download_shows_its_reason_and_can_be_started_again(registry: Registry) -> None:
    settings = registry.settings.model_copy(update={"hub": "on"})
    source = HubSource("acme/tiny", None, None)
    with registry.database.write() as session:
        base = downloads.add_from_hub(session, source, settings, precision="fp32")
        job = downloads.active_job(session, base)
        assert job is not None
        job.args = {"repo": "acme/tiny"}
    with registry.working(io_work(registry)):
        registry.until_final(IoJob, job.key)
    with registry.database.write() as session:
        (row,) = downloads.with_downloads(session, [base])
        assert row.status == "failed"
        assert "precision: This is required." in str(row.error)
        again = downloads.add_from_hub(session, source, settings)
        order = downloads.active_job(session, again)
        assert order is not None
        assert order.args["precision"] == "fp16"
