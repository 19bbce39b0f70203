"""Deleted adapters: list, restore, or delete permanently.

Deleting an adapter hides it and keeps everything. Deleting it permanently deletes its rows; the
next sweep deletes its files unless something else refers to them. Renders and merged adapters made
with it stay and keep its name; runs lose the reference to their version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, func, select

from app.registry.adapters import tools
from app.registry.adapters.library.cards import summarize
from app.registry.adapters.models import (
    Adapter,
    AdapterAlias,
    AdapterFile,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.registry.errors import Conflict, NotFound
from app.registry.jobs.kinds import JobKind
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import NOT_FINAL
from app.registry.renders.models import Render, RenderAdapter
from app.registry.runs.models import Run
from app.registry.wording import plural

DELETED_A_PAGE = 24
OF_A_VERSION = (  # job kinds whose subject is a version
    JobKind.EXPORT_ADAPTER,
    JobKind.RESIZE_ADAPTER,
    JobKind.PUBLISH_ADAPTER,
)


@dataclass(frozen=True)
class DeletedAdapter:
    """A deleted adapter; `cover` is one of its images."""

    adapter: Adapter
    version_count: int
    cover: str | None


@dataclass(frozen=True)
class DeletedPage:
    """A page of deleted adapters, and their total number."""

    items: list[DeletedAdapter]
    total: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return max(1, -(-self.total // DELETED_A_PAGE))


def has_deleted(session: Session) -> bool:
    """True if there is a deleted adapter that can be restored."""
    return session.exec(select(Adapter.id).where(_is_deleted()).limit(1)).first() is not None


def list_deleted(session: Session, *, page: int = 1) -> DeletedPage:
    """A page of deleted adapters, the last deleted first."""
    newest = (col(Adapter.deleted_at).desc(), col(Adapter.id).desc())
    query = select(Adapter).where(_is_deleted()).order_by(*newest)
    start = (page - 1) * DELETED_A_PAGE
    adapters = session.exec(query.offset(start).limit(DELETED_A_PAGE)).all()
    known = {row.adapter.key: row for row in summarize(session, adapters)}
    items = []
    for adapter in adapters:
        row = known.get(adapter.key)
        cover = row.covers[0] if row and row.covers else None
        items.append(DeletedAdapter(adapter, row.version_count if row else 0, cover))
    total = session.exec(select(func.count()).select_from(Adapter).where(_is_deleted())).one()
    return DeletedPage(items, total)


def delete_forever(session: Session, adapter_id: int) -> None:
    """Delete a deleted adapter and its versions permanently; the next sweep deletes its files.

    Raises Conflict if the adapter is not deleted yet, or if unfinished jobs need it.
    """
    adapter = session.get(Adapter, adapter_id, with_for_update=True)
    if adapter is None:
        raise NotFound("There is no such adapter; it may have been deleted for good already.")
    if adapter.deleted_at is None:
        raise Conflict(f"“{adapter.name}” is not deleted. Delete it first, then for good.")
    of_adapter = select(AdapterVersion.id).where(AdapterVersion.adapter_id == adapter_id)
    versions = [key for key in session.exec(of_adapter) if key is not None]
    if users := _jobs_that_need(session, adapter_id, versions):
        raise Conflict(
            f"“{adapter.name}” is used by {users}. Wait until they have ended or cancel them, then "
            "delete the adapter for good."
        )
    _delete_rows(session, adapter_id, versions)


def _jobs_that_need(session: Session, adapter_id: int, versions: list[int]) -> str:
    """The unfinished jobs that need this adapter, in words; empty if there are none."""
    runs = select(func.count()).select_from(Run)
    renders = select(func.count()).select_from(Render).join(RenderAdapter)
    numbers = {
        "training": session.exec(
            runs.where(col(Run.status).in_(NOT_FINAL), Run.adapter_id == adapter_id)
        ).one(),
        "render": session.exec(
            renders.where(col(Render.status).in_(NOT_FINAL), RenderAdapter.adapter_id == adapter_id)
        ).one(),
        "job": sum(
            _job_needs(job, adapter_id, versions)
            for job in session.exec(select(IoJob).where(col(IoJob.status).in_(NOT_FINAL)))
        ),
    }
    return ", ".join(plural(number, word) for word, number in numbers.items() if number)


def _job_needs(job: IoJob, adapter_id: int, versions: list[int]) -> bool:
    if job.kind in OF_A_VERSION and job.subject_id in versions:
        return True
    return adapter_id in tools.needed_adapters(job)


def _delete_rows(session: Session, adapter_id: int, versions: list[int]) -> None:
    """Delete all rows of the adapter and all references to them."""
    of_version = col(Run.adapter_version_id).in_(versions)
    _execute_statement(session, sa.update(Run).where(of_version).values(adapter_version_id=None))
    of_adapter = col(Run.adapter_id) == adapter_id
    _execute_statement(session, sa.update(Run).where(of_adapter).values(adapter_id=None))
    _delete_where(session, AdapterFile, col(AdapterFile.version_id).in_(versions))
    for table in (AdapterAlias, AdapterTag, AdapterSearch, RenderAdapter, AdapterVersion):
        _delete_where(session, table, col(table.adapter_id) == adapter_id)
    _delete_where(session, Adapter, col(Adapter.id) == adapter_id)
    session.expire_all()


def _delete_where(session: Session, table: type[SQLModel], where: sa.ColumnElement[bool]) -> None:
    _execute_statement(session, sa.delete(table).where(where))


def _execute_statement(session: Session, statement: Any) -> None:
    session.connection().execute(statement)


def _is_deleted() -> sa.ColumnElement[bool]:
    return col(Adapter.deleted_at).is_not(None)
