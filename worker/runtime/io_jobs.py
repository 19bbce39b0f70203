"""The io worker: inspects models, writes downloads, imports LoRA files, runs tools, captions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from app.registry.adapters import tools
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


def _later(module: str, name: str = "run") -> Handler:
    """A handler in a module that loads torch: it is imported by the first job of it."""
    return lambda work: getattr(import_module(f"worker.runtime.{module}"), name)(work)


HANDLERS: Mapping[str, Handler] = {
    JobKind.INSPECT_BASE: inspections.run,
    JobKind.DOWNLOAD_BASE: hub_jobs.download_model,
    JobKind.EXPORT_ADAPTER: export_jobs.run,
    JobKind.KEEP_IN_FOLDER: folder_jobs.run,
    JobKind.IMPORT_ADAPTER: _later("import_jobs"),
    JobKind.FETCH_HUB_ADAPTER: hub_jobs.fetch_adapter,
    JobKind.PUBLISH_ADAPTER: hub_jobs.publish_adapter,
    **dict.fromkeys((*tools.KINDS, JobKind.MEASURE_OVERLAP), _later("tool_jobs")),
    **dict.fromkeys(EVALUATIONS, _later("renders.evaluation_jobs")),
    JobKind.ADVANCE_SWEEP: _later("renders.training_sweeps"),
    JobKind.SWEEP: sweep_jobs.run,
    JobKind.MAKE_THUMBNAILS: thumbnail_jobs.run,
    JobKind.DELETE_DRAFTS: sweep_jobs.delete_drafts,
    JobKind.MEASURE_LOOKS: _later("upkeep.look_jobs", "measure_all"),
    JobKind.MEASURE_IMAGE: _later("upkeep.look_jobs", "measure_image"),
    JobKind.CHECK_FILES: check_jobs.run,
    JobKind.CAPTION_IMAGES: _later("caption_jobs", "caption_images"),
    JobKind.PREVIEW_CAPTION: _later("caption_jobs", "preview"),
    JobKind.DOWNLOAD_CAPTION_MODEL: hub_jobs.download_model,
    JobKind.CHECK_CAPTION_MODEL: inspections.run,
}
"""An io worker idles without torch."""


class IoJobs:
    """Processes the jobs of the `io` queue."""

    table = IoJob
    device = "CPU"
    machine = ""
    memory_bytes = None

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
