"""The io worker: inspects models, writes downloads, imports LoRA files, runs tools, captions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.registry.blobs.report import report
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.job_kinds.kinds import EVALUATIONS, JobKind
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.jobs import IoJob
from app.registry.temporary import temporary_folder
from worker.runtime import export_jobs, hub_jobs
from worker.runtime.inspection import jobs as inspections
from worker.runtime.job_progress import Handler, IoWork, RefusedError
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait
from worker.runtime.upkeep import check_jobs, folder_jobs, sweep_jobs, thumbnail_jobs
from worker.runtime.upkeep.clock import UpkeepClock


def _import_adapter(work: IoWork) -> None:
    from worker.runtime import import_jobs

    import_jobs.run(work)


def _use_tool(work: IoWork) -> None:
    from worker.runtime import tool_jobs

    tool_jobs.run(work)


def _measure_overlap(work: IoWork) -> None:
    from worker.runtime import overlap_jobs

    overlap_jobs.run(work)


def _evaluate(work: IoWork) -> None:
    from worker.runtime.renders import evaluation_jobs

    evaluation_jobs.run(work)


def _caption_images(work: IoWork) -> None:
    from worker.runtime import caption_jobs

    caption_jobs.caption_images(work)


def _preview_caption(work: IoWork) -> None:
    from worker.runtime import caption_jobs

    caption_jobs.preview(work)


HANDLERS: Mapping[str, Handler] = {
    JobKind.INSPECT_BASE: inspections.inspect_base,
    JobKind.DOWNLOAD_BASE: hub_jobs.download_base,
    JobKind.EXPORT_ADAPTER: export_jobs.run,
    JobKind.KEEP_IN_FOLDER: folder_jobs.run,
    JobKind.IMPORT_ADAPTER: _import_adapter,
    JobKind.FETCH_HUB_ADAPTER: hub_jobs.fetch_adapter,
    JobKind.PUBLISH_ADAPTER: hub_jobs.publish_adapter,
    JobKind.MERGE_ADAPTERS: _use_tool,
    JobKind.RESIZE_ADAPTER: _use_tool,
    JobKind.SCALE_ADAPTER: _use_tool,
    JobKind.FUSE_ADAPTER: _use_tool,
    JobKind.EXTRACT_ADAPTER: _use_tool,
    JobKind.MEASURE_OVERLAP: _measure_overlap,
    **dict.fromkeys(EVALUATIONS, _evaluate),
    JobKind.SWEEP: sweep_jobs.run,
    JobKind.MAKE_THUMBNAILS: thumbnail_jobs.run,
    JobKind.DELETE_DRAFTS: sweep_jobs.delete_drafts,
    JobKind.CHECK_FILES: check_jobs.run,
    JobKind.CAPTION_IMAGES: _caption_images,
    JobKind.PREVIEW_CAPTION: _preview_caption,
    JobKind.DOWNLOAD_CAPTION_MODEL: hub_jobs.download_caption_model,
    JobKind.CHECK_CAPTION_MODEL: inspections.check_caption_model,
}
"""An io worker idles without torch: modules that load it are imported by the first job of them."""


class IoJobs:
    """Processes the jobs of the `io` queue."""

    table = IoJob
    device = "CPU"
    machine = ""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        handlers: Mapping[str, Handler] = HANDLERS,
    ) -> None:
        """`handlers`: by kind of job."""
        self._settings = settings
        self._database = database
        self._store = store
        self._clock = UpkeepClock(settings, database)
        self.handlers = handlers

    def prepare(self) -> None:
        """Start the upkeep clock; the first job that needs torch imports it."""
        self._clock.open()

    def close(self) -> None:
        """Stop the upkeep clock."""
        self._clock.close()

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        """Carry out a job by the handler of its kind, in this process."""
        with temporary_folder(self._settings.scratch, "io-") as scratch:
            self.carry_out(job, lease, scratch, stopping)

    def carry_out(self, job: Any, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Carry out a job with this folder for temporary files.

        Handlers that can take long return the job to the queue once the worker stops.
        """
        work = IoWork(self._settings, self._database, self._store, job, lease, scratch, stopping)
        handler = self.handlers.get(job.kind)
        try:
            if handler is None:
                raise RefusedError("unknown_kind", f"There is no job of the kind “{job.kind}”.")
            handler(work)
        except RefusedError as error:
            work.fail(error.code, str(error))
        except (BlobNotFound, BlobDamaged) as error:
            work.fail(error.code, report(self._database, error))
        except AppError as error:
            if reason_to_wait(error) is not None:
                raise  # the job goes back to the queue, and this worker waits
            work.fail(error.code, error.detail)
