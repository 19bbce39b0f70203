"""Base models from the Hugging Face Hub: ordered, followed, stopped, tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app.registry.base_models import service
from app.registry.base_models.models import BaseModel, BaseModelStatus
from app.registry.config import Settings
from app.registry.errors import Conflict, InvalidInput
from app.registry.hub_source import SCHEME, HubSource, read_source, require_allowed
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import DownloadBaseArgs, DownloadBaseResult, InspectBaseArgs, JobKind
from app.registry.jobs.models import IoJob
from app.registry.slugs import unique_slug
from app.registry.wording import size_text

PRECISIONS = ("fp16", "fp32")
FUSED_FOLDER = "fused"  # in the data folder: base models made here
MAX_ATTEMPTS = 20  # a download goes on where it was, so a worker that stops costs it little
STOPPED = "The download was stopped{at}. What has arrived is kept: download it again to go on."


@dataclass(frozen=True)
class Download:
    """How far a download is; `total` and `file` are unknown before the Hub has answered."""

    is_waiting: bool
    done: int
    total: int | None
    file: str

    @property
    def share(self) -> float:
        """How much is here, from 0 to 1."""
        return self.done / self.total if self.total else 0.0


@dataclass(frozen=True)
class Shown:
    """A base model with its download while there is one; `status` and `error` as they are now."""

    base: BaseModel
    download: Download | None
    status: BaseModelStatus
    error: str | None

    @property
    def is_from_hub(self) -> bool:
        """True when it can be downloaded (again)."""
        return is_from_hub(self.base)

    @property
    def place(self) -> str:
        """Where it is from, as people write it."""
        return self.base.source.removeprefix(SCHEME)


def is_from_hub(base: BaseModel) -> bool:
    """True for a base model whose files come from the Hub."""
    return base.source.startswith(SCHEME)


def is_fused(source: str, data_dir: Path) -> bool:
    """True for a base model that was made here, by fusing."""
    return Path(source).parent == (data_dir / FUSED_FOLDER).resolve()


def add(
    session: Session, source: str, settings: Settings, *, precision: str | None = None
) -> BaseModel:
    """Register what a person named: a path of this machine, or something on the Hub."""
    on_hub = read_source(source)
    if on_hub is not None:
        return add_from_hub(session, on_hub, settings, precision=precision)
    return service.add_base_model(
        session, source, allowed_folders=service.allowed_folders(settings)
    )


def add_from_hub(
    session: Session, source: HubSource, settings: Settings, *, precision: str | None = None
) -> BaseModel:
    """Order the download of a base model; one that failed or was stopped goes on.

    `precision`: None for what was asked for before, at first fp16.
    """
    require_allowed(settings)
    if source.file is not None and not source.file.endswith(".safetensors"):
        sentence = f"Only .safetensors files are read, and {source.file} is none."
        raise InvalidInput(sentence, fields={"source": sentence})
    base = session.exec(select(BaseModel).where(BaseModel.source == source.uri)).first()
    if base is None:
        base = BaseModel(
            name=source.name,
            source=source.uri,
            slug=unique_slug(session, BaseModel, source.name, fallback="base"),
        )
    elif shown(session, [base])[0].status not in service.ADDABLE and not _is_gone(base):
        raise Conflict(f"“{base.name}” is already this base model.")
    base.status, base.error = BaseModelStatus.DOWNLOADING, None
    session.add(base)
    session.flush()
    if precision is None:
        precision = _last_precision(session, base.key) or PRECISIONS[0]
    args = DownloadBaseArgs(
        repo=source.repo, revision=source.revision, file=source.file, precision=precision
    )
    jobs.enqueue_io(session, args, subject_id=base.key, max_attempts=MAX_ATTEMPTS)
    return base


def _last_precision(session: Session, base_id: int) -> str | None:
    """The precision that was asked for last; None before the first download."""
    before: list[IoJob] = list(session.exec(_jobs([base_id])))
    args = before[-1].readable_arguments() if before else None
    return args.precision if isinstance(args, DownloadBaseArgs) else None


def _is_gone(base: BaseModel) -> bool:
    return base.status == BaseModelStatus.READY and not service.location(base).exists()


def shown(session: Session, bases: Sequence[BaseModel]) -> list[Shown]:
    """These base models as they are now, with their downloads."""
    at_work = [base.key for base in bases if base.status == BaseModelStatus.DOWNLOADING]
    newest = {job.subject_id: job for job in session.exec(_jobs(at_work))} if at_work else {}
    return [_shown(base, newest.get(base.key)) for base in bases]


def _jobs(base_ids: Sequence[int]) -> Any:
    ours = select(IoJob).where(
        IoJob.kind == JobKind.DOWNLOAD_BASE, col(IoJob.subject_id).in_(base_ids)
    )
    return ours.order_by(col(IoJob.id))


def _shown(base: BaseModel, job: IoJob | None) -> Shown:
    status = BaseModelStatus(base.status)
    if status is not BaseModelStatus.DOWNLOADING:
        return Shown(base, None, status, base.error)
    if job is None or job.state.is_final:  # given up: its worker was lost too often
        sentence = (job and job.error) or STOPPED.format(at="")
        return Shown(base, None, BaseModelStatus.FAILED, sentence)
    progress = job.outcome(DownloadBaseResult)
    download = Download(
        is_waiting=job.started_at is None or progress.bytes_done is None,
        done=progress.bytes_done or 0,
        total=progress.bytes_total,
        file=progress.file,
    )
    return Shown(base, download, status, None)


def cancel(session: Session, base_id: int) -> BaseModel:
    """Stop a download, soon; what has arrived is kept."""
    base = service.get_base_model(session, base_id)
    job = active_job(session, base)
    if job is None:
        raise Conflict(f"“{base.name}” is not being downloaded.")
    if not jobs.request_cancel(session, IoJob, job).is_active:
        write_stopped(session, base.key, job)
    return base


def active_job(session: Session, base: BaseModel) -> IoJob | None:
    """The download that waits or is at work."""
    found: list[IoJob] = [job for job in session.exec(_jobs([base.key])) if job.state.is_active]
    return found[-1] if found else None


def write_stopped(session: Session, base_id: int, job: IoJob) -> None:
    """A download was stopped on request."""
    progress = job.outcome(DownloadBaseResult)
    done, total = progress.bytes_done, progress.bytes_total
    at = f" at {size_text(done)} of {size_text(total)}" if done and total else ""
    _set(session, base_id, BaseModelStatus.FAILED, STOPPED.format(at=at))


def write_downloaded(session: Session, base_id: int, path: str, commit: str) -> None:
    """The files are here; what they are is looked at next."""
    base = session.get_one(BaseModel, base_id)
    base.local_path, base.revision = path, commit
    _set(session, base_id, BaseModelStatus.CHECKING, None)
    jobs.enqueue_io(session, InspectBaseArgs(), subject_id=base_id)


def _set(session: Session, base_id: int, status: BaseModelStatus, error: str | None) -> None:
    base = session.get_one(BaseModel, base_id)
    base.status, base.error = status, error
    session.add(base)
