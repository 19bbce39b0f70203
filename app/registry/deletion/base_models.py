"""Removal of base models: which files are deleted, and what prevents a removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.added_models import removal
from app.registry.added_models.removal import FileRemoval
from app.registry.base_models import service
from app.registry.base_models.fused_files import is_fused
from app.registry.base_models.service import BASE_MODELS
from app.registry.config import Settings
from app.registry.errors import Conflict
from app.registry.job_kinds.kinds import ExtractAdapterArgs, JobKind
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.added_models import (
    EMBEDDED,
    RETIRED,
    BaseModel,
    BasePrecision,
    BaseSpeed,
    ModelStatus,
)
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Run


@dataclass(frozen=True)
class Removal:
    """Effects of removing a base model; adapters, runs and images made with it stay."""

    fate: FileRemoval
    adapters: int
    runs: int
    images: int


def removal_effects(
    session: Session, bases: Sequence[BaseModel], settings: Settings
) -> dict[int, Removal]:
    """Effects of the removal of each removable base model, by its id."""
    of_version = (
        sa.select(col(AdapterVersion.base_model_id), sa.func.count(sa.distinct(col(Adapter.id))))
        .join(Adapter, col(Adapter.id) == col(AdapterVersion.adapter_id))
        .where(is_in_library())
    )
    adapters = _count_by_base(session, of_version, col(AdapterVersion.base_model_id))
    runs, images = (
        _count_by_base(session, sa.select(base_id, sa.func.count()), base_id)
        for base_id in (col(Run.base_model_id), col(Render.base_model_id))
    )
    return {
        base.key: Removal(
            fate=_file_removal(session, base, settings)[0],
            adapters=adapters.get(base.key, 0),
            runs=runs.get(base.key, 0),
            images=images.get(base.key, 0),
        )
        for base in bases
        if base.source != EMBEDDED and base.status != ModelStatus.REMOVED
    }


def _count_by_base(session: Session, query: Any, base_id: Any) -> dict[int, int]:
    return dict(session.exec(query.group_by(base_id)).all())


def _file_removal(
    session: Session, base: BaseModel, settings: Settings
) -> tuple[FileRemoval, Path | None]:
    if is_fused(base.source, settings.data_dir):
        return FileRemoval.DELETED, Path(base.source)
    return removal.file_removal(session, BASE_MODELS, base, settings)


def remove(session: Session, base_id: int, settings: Settings) -> Path | None:
    """Remove a base model; return the path to pass to `delete_model_files` after the commit.

    Only files downloaded from the Hub or fused here are deleted. A base model that was used keeps
    its row, which is reused if it is added again.
    """
    base = service.get_base_model(session, base_id)
    if base.status == ModelStatus.REMOVED:
        return None  # idempotent
    _require_idle(session, base)
    _, place = _file_removal(session, base, settings)
    for table in (BaseSpeed, BasePrecision):
        measured = sa.delete(table).where(col(table.base_model_id) == base_id)
        session.connection().execute(measured)
    if _is_used(session, base_id):
        base.status, base.error = ModelStatus.REMOVED, None
        session.add(base)
    else:
        session.delete(base)
    return place


def _require_idle(session: Session, base: BaseModel) -> None:
    """Raise Conflict for the built-in base model, and while unfinished jobs need it."""
    if base.source == EMBEDDED:
        raise Conflict(f"“{base.name}” is built in and cannot be removed.")
    removal.require_no_download(session, BASE_MODELS, base)
    kinds = (JobKind.FUSE_ADAPTER, JobKind.EXTRACT_ADAPTER)
    jobs = select(IoJob).where(col(IoJob.kind).in_(kinds), col(IoJob.status).in_(NOT_FINAL))
    needed = {
        "runs": _is_at_work(session, Run, base.key),
        "renders": _is_at_work(session, Render, base.key),
        "tools": any(base.key in _needed_by(job) for job in session.exec(jobs)),
    }
    if waiting := [what for what, is_needed in needed.items() if is_needed]:
        raise Conflict(
            f"“{base.name}” is used by unfinished {' and '.join(waiting)}. Wait until they have "
            "ended, or cancel them."
        )


def _needed_by(job: IoJob) -> set[int | None]:
    """The base models that a job of a tool reads."""
    args = job.readable_arguments()
    return {job.subject_id} | ({args.tuned_id} if isinstance(args, ExtractAdapterArgs) else set())


def _is_at_work(session: Session, table: type[Run] | type[Render], base_id: int) -> bool:
    mine = select(table.id).where(
        col(table.base_model_id) == base_id, col(table.status).in_(NOT_FINAL)
    )
    return session.exec(mine.limit(1)).first() is not None


def _is_used(session: Session, base_id: int) -> bool:
    with deleted_too(session):
        return any(
            session.exec(select(kind.id).where(col(kind.base_model_id) == base_id).limit(1)).first()
            for kind in (Run, AdapterVersion, Render)
        )


def list_retired(session: Session) -> list[BaseModel]:
    """The embedded base models of older versions that something was made with, oldest first."""
    theirs = select(BaseModel).where(col(BaseModel.source).startswith(RETIRED, autoescape=True))
    found = session.exec(theirs.order_by(col(BaseModel.id))).all()
    return [base for base in found if _is_used(session, base.key)]
