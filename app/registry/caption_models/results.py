"""What io workers found out of caption models; a model that was removed meanwhile stays so."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.job_kinds.caption_kinds import CheckCaptionModelArgs
from app.registry.jobs import model_downloads
from app.registry.jobs import service as jobs
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.jobs import IoJob
from worker.core.captioning.local.inspect import CaptionModelInfo


def write_checked(session: Session, model_id: int, found: CaptionModelInfo) -> None:
    """Record what a folder holds: the model is ready."""
    model = session.get(CaptionModel, model_id)
    if model is not None:
        model.family, model.size_bytes = found.family, found.size_bytes
        _set_status(session, model, ModelStatus.READY, None)


def write_unusable(session: Session, model_id: int, sentence: str) -> None:
    """Record why a model cannot be used."""
    model = session.get(CaptionModel, model_id)
    if model is not None:
        _set_status(session, model, ModelStatus.FAILED, sentence)


def write_stopped(session: Session, model_id: int, job: IoJob) -> None:
    """Record that a download was stopped on request."""
    write_unusable(session, model_id, model_downloads.stopped_sentence(job))


def write_downloaded(session: Session, model_id: int, path: str, commit: str) -> None:
    """Record that the files are complete, and queue their check."""
    model = session.get(CaptionModel, model_id)
    if model is not None:
        model.local_path, model.revision = path, commit
        _set_status(session, model, ModelStatus.CHECKING, None)
        jobs.enqueue_io(session, CheckCaptionModelArgs(), subject_id=model_id)


def _set_status(
    session: Session, model: CaptionModel, status: ModelStatus, error: str | None
) -> None:
    model.status, model.error = status, error
    session.add(model)
