"""Downloads of base models from the Hugging Face Hub: start, progress, cancel, resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, select

from app.registry import model_sources
from app.registry.base_models import service
from app.registry.config import Settings
from app.registry.errors import Conflict, InvalidInput
from app.registry.hub_source import SCHEME, HubSource, read_source, require_allowed
from app.registry.job_kinds.kinds import DownloadBaseArgs, InspectBaseArgs, JobKind
from app.registry.jobs import model_downloads
from app.registry.jobs import service as jobs
from app.registry.jobs.model_downloads import Download
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import BaseModel
from app.registry.tables.jobs import IoJob

PRECISIONS = ("fp16", "fp32")
FUSED_FOLDER = "fused"  # in the data folder: base models created by fusing


@dataclass(frozen=True)
class BaseWithDownload:
    """A base model with its active download, if any, and its current `status` and `error`.

    `missing`: a sentence if it is ready and its files are gone.
    """

    base: BaseModel
    download: Download | None
    status: ModelStatus
    error: str | None
    missing: str = ""

    @property
    def is_from_hub(self) -> bool:
        """True if it can be downloaded (again)."""
        return is_from_hub(self.base)

    @property
    def place(self) -> str:
        """Its source as shown to users."""
        if self.base.is_retired:
            return "built into an older version"
        return self.base.source.removeprefix(SCHEME)


def is_from_hub(base: BaseModel) -> bool:
    """True if the files of a base model come from the Hub."""
    return model_sources.is_from_hub(base.source)


def is_fused(source: str, data_dir: Path) -> bool:
    """True if the base model was created here by fusing."""
    return Path(source).parent == (data_dir / FUSED_FOLDER).resolve()


def add(
    session: Session, source: str, settings: Settings, *, precision: str | None = None
) -> BaseModel:
    """Register a base model from a path on this machine or a name on the Hub."""
    on_hub = read_source(source)
    if on_hub is not None:
        return add_from_hub(session, on_hub, settings, precision=precision)
    return service.add_base_model(
        session, source, allowed_folders=model_sources.allowed_folders(settings)
    )


def add_from_hub(
    session: Session, source: HubSource, settings: Settings, *, precision: str | None = None
) -> BaseModel:
    """Queue the download of a base model; a failed or stopped one resumes.

    `precision`: None for the last choice, by default fp16.
    """
    require_allowed(settings)
    if source.file is not None and not source.file.endswith(".safetensors"):
        sentence = f"{source.file} is not a .safetensors file. Choose one that is."
        raise InvalidInput(sentence, fields={"source": sentence})
    base = session.exec(select(BaseModel).where(BaseModel.source == source.uri)).first()
    if base is None:
        base = service.insert_new(session, source=source.uri, name=source.name)
    elif with_downloads(session, [base])[0].status not in service.ADDABLE and not _is_missing(base):
        raise Conflict(service.ALREADY.format(name=base.name))
    base.status, base.error = ModelStatus.DOWNLOADING, None
    session.add(base)
    session.flush()
    if precision is None:
        precision = _last_precision(session, base.key) or PRECISIONS[0]
    args = DownloadBaseArgs(
        repo=source.repo, revision=source.revision, file=source.file, precision=precision
    )
    attempts = model_downloads.MAX_ATTEMPTS
    jobs.enqueue_io(session, args, subject_id=base.key, max_attempts=attempts)
    return base


def _last_precision(session: Session, base_id: int) -> str | None:
    """The precision requested last; None before the first download."""
    newest = model_downloads.newest_downloads(session, JobKind.DOWNLOAD_BASE, [base_id])
    before = newest.get(base_id)
    args = before.readable_arguments() if before else None
    return args.precision if isinstance(args, DownloadBaseArgs) else None


def _is_missing(base: BaseModel) -> bool:
    return base.status == ModelStatus.READY and not base.location.exists()


def with_downloads(session: Session, bases: Sequence[BaseModel]) -> list[BaseWithDownload]:
    """These base models with their current status and downloads."""
    at_work = [base.key for base in bases if base.status == ModelStatus.DOWNLOADING]
    newest = model_downloads.newest_downloads(session, JobKind.DOWNLOAD_BASE, at_work)
    return [_with_download(base, newest.get(base.key)) for base in bases]


def _with_download(base: BaseModel, job: IoJob | None) -> BaseWithDownload:
    status = ModelStatus(base.status)
    if base.is_retired:
        return BaseWithDownload(base, None, status, service.NOT_SHIPPED.format(name=base.name))
    if status is not ModelStatus.DOWNLOADING:
        missing = service.missing_files(base) if status is ModelStatus.READY else ""
        return BaseWithDownload(base, None, status, base.error, missing)
    if job is None or job.state.is_final:  # failed after too many lost workers
        sentence = model_downloads.lost_sentence(job)
        return BaseWithDownload(base, None, ModelStatus.FAILED, sentence)
    return BaseWithDownload(base, model_downloads.progress_of(job), status, None)


def cancel(session: Session, base_id: int) -> BaseModel:
    """Stop a download soon; the downloaded part is kept."""
    base = service.get_base_model(session, base_id)
    job = active_job(session, base)
    if job is None:
        raise Conflict(f"“{base.name}” is not being downloaded, so there is nothing to stop.")
    if not jobs.request_cancel(session, IoJob, job).is_active:
        write_stopped(session, base.key, job)
    return base


def active_job(session: Session, base: BaseModel) -> IoJob | None:
    """The queued or running download of a base model, if any."""
    return model_downloads.active_download(session, JobKind.DOWNLOAD_BASE, base.key)


def write_stopped(session: Session, base_id: int, job: IoJob) -> None:
    """Record that a download was stopped on request."""
    _set_status(session, base_id, ModelStatus.FAILED, model_downloads.stopped_sentence(job))


def write_downloaded(session: Session, base_id: int, path: str, commit: str) -> None:
    """Record that the files are complete, and queue their inspection."""
    base = session.get_one(BaseModel, base_id)
    base.local_path, base.revision = path, commit
    _set_status(session, base_id, ModelStatus.CHECKING, None)
    jobs.enqueue_io(session, InspectBaseArgs(), subject_id=base_id)


def _set_status(session: Session, base_id: int, status: ModelStatus, error: str | None) -> None:
    base = session.get_one(BaseModel, base_id)
    base.status, base.error = status, error
    session.add(base)
