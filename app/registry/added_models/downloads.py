"""Downloads of models from the Hub, by their io jobs: progress, the newest, why one stopped."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.job_kinds.kinds import ByteProgress, JobKind
from app.registry.tables.jobs import IoJob
from app.registry.wording import size_text

MAX_ATTEMPTS = 20  # downloads resume, so a worker that stops costs little
STOPPED = "The download was stopped{at}. Download it again to resume where it stopped."


@api_record
class Download:
    """The progress of a download from the Hub."""

    is_waiting: bool = Field(exclude=True)
    done: int = Field(serialization_alias="bytes_done", description="Bytes that are here.")
    total: int | None = Field(
        serialization_alias="bytes_total",
        description="Bytes in all; null before the Hub answers.",
    )
    file: str = Field(description="The file that is being downloaded.")

    @property
    def share(self) -> float:
        """Downloaded share, from 0 to 1."""
        return self.done / self.total if self.total else 0.0


def newest_downloads(
    session: Session, kind: JobKind, model_ids: Sequence[int]
) -> dict[int | None, IoJob]:
    """The newest download of each of these models that ever had one; `kind` is that of the jobs."""
    if not model_ids:
        return {}
    theirs = select(IoJob).where(IoJob.kind == kind, col(IoJob.subject_id).in_(model_ids))
    return {job.subject_id: job for job in session.exec(theirs.order_by(col(IoJob.id)))}


def active_download(session: Session, kind: JobKind, model_id: int) -> IoJob | None:
    """The queued or running download of a model, if any."""
    newest = newest_downloads(session, kind, [model_id]).get(model_id)
    return newest if newest is not None and newest.state.is_active else None


def progress_of(job: IoJob) -> Download:
    """The progress of a download that has not ended."""
    progress = job.outcome(ByteProgress)
    return Download(
        is_waiting=job.started_at is None or progress.bytes_done is None,
        done=progress.bytes_done or 0,
        total=progress.bytes_total,
        file=progress.file,
    )


def lost_sentence(job: IoJob | None) -> str:
    """Why a model whose download has ended is not there, as after too many lost workers."""
    return (job and job.error) or STOPPED.format(at="")


def stopped_sentence(job: IoJob) -> str:
    """That a download was stopped on request, and where."""
    progress = job.outcome(ByteProgress)
    done, total = progress.bytes_done, progress.bytes_total
    at = f" at {size_text(done)} of {size_text(total)}" if done and total else ""
    return STOPPED.format(at=at)
