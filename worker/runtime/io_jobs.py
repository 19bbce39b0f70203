"""The io worker: inspects models, writes downloads, imports LoRA files, runs tools, captions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.registry.blobs.report import report
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.job_kinds.kinds import EVALUATIONS, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.jobs import IoJob
from app.registry.temporary import temporary_folder
from worker.runtime.export_jobs import ExportJobs
from worker.runtime.hub_jobs import HubJobs
from worker.runtime.inspection.jobs import InspectionJobs
from worker.runtime.job_progress import Handler, RefusedError
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait
from worker.runtime.upkeep.check_jobs import CheckJobs
from worker.runtime.upkeep.clock import UpkeepClock
from worker.runtime.upkeep.folder_jobs import FolderJobs
from worker.runtime.upkeep.sweep_jobs import DraftJobs, SweepJobs
from worker.runtime.upkeep.thumbnail_jobs import ThumbnailJobs

if TYPE_CHECKING:
    from worker.runtime.caption_jobs import CaptionJobs
    from worker.runtime.import_jobs import ImportJobs
    from worker.runtime.overlap_jobs import OverlapJobs
    from worker.runtime.renders.evaluation_jobs import EvaluationJobs
    from worker.runtime.tool_jobs import ToolJobs


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
        handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        """`handlers`: of another queue, in place of its own."""
        self._settings = settings
        self._database = database
        self._store = store
        export_jobs = ExportJobs(database, store)
        folder_jobs = FolderJobs(settings, database, store, export_jobs.download)
        hub = HubJobs(settings, database, store, export_jobs.download)
        inspections = InspectionJobs(database)
        self._clock = UpkeepClock(settings, database)
        self.handlers: Mapping[str, Handler] = handlers or {
            JobKind.INSPECT_BASE: inspections.inspect_base,
            JobKind.DOWNLOAD_BASE: hub.download_base,
            JobKind.EXPORT_ADAPTER: export_jobs.run,
            JobKind.KEEP_IN_FOLDER: folder_jobs.run,
            JobKind.IMPORT_ADAPTER: lambda *job: self._import_jobs.run(*job),
            JobKind.FETCH_HUB_ADAPTER: hub.fetch_adapter,
            JobKind.PUBLISH_ADAPTER: hub.publish_adapter,
            JobKind.MERGE_ADAPTERS: lambda *job: self._tool_jobs.merge(*job),
            JobKind.RESIZE_ADAPTER: lambda *job: self._tool_jobs.resize(*job),
            JobKind.SCALE_ADAPTER: lambda *job: self._tool_jobs.scale(*job),
            JobKind.FUSE_ADAPTER: lambda *job: self._tool_jobs.fuse(*job),
            JobKind.EXTRACT_ADAPTER: lambda *job: self._tool_jobs.extract(*job),
            JobKind.MEASURE_OVERLAP: lambda *job: self._overlap_jobs.run(*job),
            **dict.fromkeys(EVALUATIONS, lambda *job: self._evaluation_jobs.run(*job)),
            JobKind.SWEEP: SweepJobs(database, store).run,
            JobKind.MAKE_THUMBNAILS: ThumbnailJobs(database, store).run,
            JobKind.DELETE_DRAFTS: DraftJobs(settings, database, store).run,
            JobKind.CHECK_FILES: CheckJobs(database, store).run,
            JobKind.CAPTION_IMAGES: lambda *job: self._caption_jobs.caption_images(*job),
            JobKind.PREVIEW_CAPTION: lambda *job: self._caption_jobs.preview(*job),
            JobKind.DOWNLOAD_CAPTION_MODEL: hub.download_caption_model,
            JobKind.CHECK_CAPTION_MODEL: inspections.check_caption_model,
        }

    # An io worker idles without torch: the modules that load it are imported by the first job that
    # needs them, here and in ExportJobs.

    @cached_property
    def _import_jobs(self) -> ImportJobs:
        from worker.runtime.import_jobs import ImportJobs

        return ImportJobs(self._database, self._store)

    @cached_property
    def _tool_jobs(self) -> ToolJobs:
        from worker.runtime.tool_jobs import ToolJobs

        return ToolJobs(self._settings, self._database, self._store)

    @cached_property
    def _caption_jobs(self) -> CaptionJobs:
        from worker.runtime.caption_jobs import CaptionJobs

        return CaptionJobs(self._settings, self._database, self._store)

    @cached_property
    def _overlap_jobs(self) -> OverlapJobs:
        from worker.runtime.overlap_jobs import OverlapJobs

        return OverlapJobs(self._database, self._store)

    @cached_property
    def _evaluation_jobs(self) -> EvaluationJobs:
        from worker.runtime.renders.evaluation_jobs import EvaluationJobs

        return EvaluationJobs(self._settings, self._database, self._store)

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
        handler = self.handlers.get(job.kind)
        try:
            if handler is None:
                raise RefusedError("unknown_kind", f"There is no job of the kind “{job.kind}”.")
            handler(job, lease, scratch, stopping)
        except RefusedError as error:
            self._fail(lease, error.code, str(error))
        except (BlobNotFound, BlobDamaged) as error:
            self._fail(lease, error.code, report(self._database, error))
        except AppError as error:
            if reason_to_wait(error) is not None:
                raise  # the job goes back to the queue, and this worker waits
            self._fail(lease, error.code, error.detail)

    def _fail(self, lease: Lease, code: str, sentence: str) -> None:
        with self._database.write() as session:
            jobs.finish(
                session, IoJob, lease.claim, JobStatus.FAILED, error=sentence, error_code=code
            )
