"""What is deleted and can be restored: lists, a page at a time, and what is deleted for good."""

from __future__ import annotations

from typing import TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import MAX_ID
from app.registry.errors import Conflict, NotFound
from app.registry.paging import Page, read_rows
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.datasets import Dataset
from app.registry.tables.rows import Restorable, deleted_too
from app.registry.tables.runs import OwnPreset, Run

DELETED_A_PAGE = 24
RowT = TypeVar("RowT", Adapter, AdapterVersion, Dataset, OwnPreset, Run)
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


def deleted_rows(
    session: Session,
    table: type[RowT],
    number: int | None,
    *conditions: sa.ColumnElement[bool],
) -> Page[RowT]:
    """The rows of this page, or of all pages, the last deleted first."""
    newest = (col(table.deleted_at).desc(), col(table.id).desc())
    chosen = (col(table.deleted_at).is_not(None), *conditions)
    size = DELETED_A_PAGE if number else MAX_ID
    with deleted_too(session):
        return read_rows(session, table, *chosen, size=size, number=number or 1, order=newest)
