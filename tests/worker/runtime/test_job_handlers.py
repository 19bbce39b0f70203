"""The io worker has a handler for every kind of job, and survives damaged rows."""

from __future__ import annotations

from pathlib import Path

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models import service as added_models
from app.registry.added_models.downloads import active_download
from app.registry.base_models.service import BASE_MODELS
from app.registry.job_kinds.job_types import JOB_TYPES, TRAIN_KINDS
from app.registry.job_kinds.kinds import (
    ExportAdapterArgs,
    JobKind,
    MergeAdaptersArgs,
    ResizeAdapterArgs,
    SweepArgs,
)
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.jobs import service as jobs
from app.registry.tables.jobs import IoJob
from tests.worker.runtime.job_loops import Registry
from worker.core.words import FileFormat, WeightDtype
from worker.runtime.io_jobs import IoJobs

DAMAGED = {name: ["much"] for name in ("rank", "grid_id", "image")}
WITHOUT_ARGUMENTS = {
    JobKind.CHECK_CAPTION_MODEL,
    JobKind.INSPECT_BASE,
    JobKind.MEASURE_LOOKS,
    JobKind.SWEEP,
    JobKind.DELETE_DRAFTS,
    JobKind.MAKE_THUMBNAILS,
    JobKind.CHECK_FILES,
}


def io_work(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def test_every_kind_has_a_handler_and_every_handler_a_kind(registry: Registry) -> None:
    assert set(io_work(registry).handlers) == {*JOB_TYPES} - {*TRAIN_KINDS}


def test_damaged_arguments_fail_the_job_and_the_worker_goes_on(registry: Registry) -> None:
    kinds = [kind for kind in JobKind if kind not in {*WITHOUT_ARGUMENTS, *TRAIN_KINDS}]
    with registry.database.write() as session:
        damaged = [
            jobs.enqueue(session, IoJob(kind=kind, subject_id=1, args=DAMAGED)).key
            for kind in kinds
        ]
        after = jobs.enqueue_io(session, SweepArgs(), priority=1).key
    with registry.working(io_work(registry)):
        ended = [registry.until_final(IoJob, key) for key in damaged]
        assert registry.until_final(IoJob, after).status == "succeeded"
    for job in ended:
        assert (job.status, job.error_code, job.attempt) == ("failed", "damaged_job", 1), job.kind
        assert job.error.startswith("The stored arguments of this job are damaged. ")


def test_no_job_works_with_damaged_weights(registry: Registry, tmp_path: Path) -> None:
    blob = registry.store.put_bytes(b"weights")
    registry.store.local_path(blob.sha256, tmp_path).write_bytes(b"#eights")
    with registry.database.write() as session:
        version = publish(session, NewVersion("Faded", "sd1", blob.sha256, blob.size, 2, 2.0))
        part = ResolvedAdapter(
            adapter_id=version.adapter_id, version=1, version_id=version.key, name="x", slug="x"
        )
        merge = {"name": "x", "parts": (part,), "method": "linear", "rank": None}
        orders = [
            ExportAdapterArgs(format=FileFormat.KOHYA, dtype=WeightDtype.FP16),
            ResizeAdapterArgs(rank=1, energy=None, dynamic=False),
            MergeAdaptersArgs.model_validate(merge | {"density": 1.0, "seed": 0}),
        ]
        keys = [jobs.enqueue_io(session, args, subject_id=version.key).key for args in orders]
    with registry.working(io_work(registry)):
        ended = [registry.until_final(IoJob, key) for key in keys]
    for job in ended:
        assert (job.status, job.error_code, job.attempt) == ("failed", "blob_damaged", 1), job.kind
        assert "the weights of version 1 of “Faded” is damaged" in job.error


def test_a_damaged_download_shows_its_reason_and_can_be_started_again(registry: Registry) -> None:
    settings = registry.settings.model_copy(update={"hub": "on"})
    with registry.database.write() as session:
        base = added_models.add(session, BASE_MODELS, "acme/tiny", settings, precision="fp32")
        job = active_download(session, JobKind.DOWNLOAD_BASE, base.key)
        assert job is not None
        job.args = {"repo": "acme/tiny"}
    with registry.working(io_work(registry)):
        registry.until_final(IoJob, job.key)
    with registry.database.write() as session:
        (row,) = added_models.list_with_progress(session, BASE_MODELS, [base])
        assert row.status == "failed"
        assert "precision: This is required." in str(row.error)
        again = added_models.add(session, BASE_MODELS, "acme/tiny", settings)
        order = active_download(session, JobKind.DOWNLOAD_BASE, again.key)
        assert order is not None
        assert order.args["precision"] == "fp16"
