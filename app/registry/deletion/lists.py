"""What is deleted and can be restored: lists, a page at a time, and what is deleted for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import MAX_ID
from app.registry.errors import Conflict, NotFound
from app.registry.paging import Page, read_rows
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.datasets import Dataset
from app.registry.tables.rows import Restorable, deleted_too
from app.registry.tables.runs import Checkpoint, OwnPreset, Run

DELETED_A_PAGE = 24
RowT = TypeVar("RowT", Adapter, Dataset)
RestorableT = TypeVar("RestorableT", bound=Restorable)


def deleted_row(session: Session, table: type[RestorableT], key: int) -> RestorableT:
    """A deleted row, locked. Raises NotFound, or Conflict if it is not deleted."""
    row = session.get(table, key, with_for_update=True)
    noun = str(table.__tablename__).replace("_", " ")
    if row is None:
        raise NotFound(f"There is no such {noun}; it may have been deleted for good already.")
    if row.deleted_at is None:
        raise Conflict(f"This {noun} is not deleted. Delete it first, then for good.")
    return row


def has_deleted(session: Session, table: type[Adapter | Dataset | Run]) -> bool:
    """True if there is a deleted row that can be restored."""
    query = select(table.id).where(col(table.deleted_at).is_not(None))
    with deleted_too(session):
        return session.exec(query.limit(1)).first() is not None


def deleted_rows(session: Session, table: type[RowT], number: int | None) -> Page[RowT]:
    """The rows of this page, or of all pages, the last deleted first."""
    newest = (col(table.deleted_at).desc(), col(table.id).desc())
    is_deleted = col(table.deleted_at).is_not(None)
    size = DELETED_A_PAGE if number else MAX_ID
    return read_rows(session, table, is_deleted, size=size, number=number or 1, order=newest)


class DeletedKind(StrEnum):
    """A kind of deleted things that are listed together."""

    RUNS = "runs"
    VERSIONS = "versions"
    CHECKPOINTS = "checkpoints"
    PRESETS = "presets"


@dataclass(frozen=True)
class DeletedThing:
    """Something that is deleted; `place`: the end of its addresses."""

    title: str
    place: str
    deleted_at: datetime


def list_things(
    session: Session, kind: DeletedKind, *, page: int | None = None
) -> Page[DeletedThing]:
    """A page of the deleted things of a kind, or all pages, the last deleted first."""
    query, title, place = KINDS[kind]
    rows = query().subquery()
    connection = session.connection()
    total = connection.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one()
    newest = sa.select(rows).order_by(rows.c.moment.desc(), rows.c.owner, rows.c.number.desc())
    size = DELETED_A_PAGE if page else MAX_ID
    shown = newest.offset(((page or 1) - 1) * size).limit(size)
    found = [
        DeletedThing(title.format_map(row), place.format_map(row), row["moment"])
        for row in connection.execute(shown).mappings()
    ]
    return Page(found, total, page or 1, size)


def _columns(name: Any, owner: Any, number: Any, moment: Any) -> sa.Select[Any]:
    """A query of deleted rows, which makes titles and places of what they belong to."""
    columns = {"name": name, "owner": owner, "number": number, "moment": moment}
    labeled = [column.label(label) for label, column in columns.items()]
    return sa.select(*labeled).where(moment.is_not(None))


def _runs() -> sa.Select[Any]:
    return _columns(col(Run.name), col(Run.id), col(Run.id), col(Run.deleted_at))


def _presets() -> sa.Select[Any]:
    key = col(OwnPreset.id)
    return _columns(col(OwnPreset.name), key, key, col(OwnPreset.deleted_at))


def _versions() -> sa.Select[Any]:
    number, moment = col(AdapterVersion.version), col(AdapterVersion.deleted_at)
    query = _columns(col(Adapter.name), col(Adapter.id), number, moment)
    return query.where(col(AdapterVersion.adapter_id) == col(Adapter.id), is_in_library())


def _checkpoints() -> sa.CompoundSelect[Any]:
    is_there = col(Run.deleted_at).is_(None)
    step, moment = col(Checkpoint.step), col(Checkpoint.deleted_at)
    states = _columns(col(Run.name), col(Run.id), step, moment)
    number, moment = col(AdapterVersion.version), col(AdapterVersion.deleted_at)
    adapters = _columns(col(Run.name), col(Run.id), number, moment)
    return sa.union(
        states.where(col(Checkpoint.run_id) == col(Run.id), is_there),
        adapters.where(
            col(AdapterVersion.adapter_id) == col(Adapter.id),
            col(Adapter.run_id) == col(Run.id),
            is_there,
        ),
    )


KINDS: dict[DeletedKind, tuple[Callable[[], Any], str, str]] = {
    DeletedKind.RUNS: (_runs, "run {number}, “{name}”", "/runs/{owner}"),
    DeletedKind.VERSIONS: (
        _versions,
        "version {number} of “{name}”",
        "/adapters/{owner}/versions/{number}",
    ),
    DeletedKind.CHECKPOINTS: (
        _checkpoints,
        "the checkpoint at step {number:,} of “{name}”",
        "/runs/{owner}/checkpoints/{number}",
    ),
    DeletedKind.PRESETS: (_presets, "the preset “{name}”", "/presets/{owner}"),
}
"""The query of each kind, and the forms of titles and places."""
