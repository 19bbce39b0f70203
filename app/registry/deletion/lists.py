"""Lists of what is deleted and can be restored, a page at a time."""

from __future__ import annotations

from typing import TypeVar

from sqlmodel import Session, col, select

from app.registry.db import MAX_ID
from app.registry.paging import Page, read_rows
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Dataset

DELETED_A_PAGE = 24
RowT = TypeVar("RowT", Adapter, Dataset)


def has_deleted(session: Session, table: type[Adapter] | type[Dataset]) -> bool:
    """True if there is a deleted row that can be restored."""
    query = select(table.id).where(col(table.deleted_at).is_not(None))
    return session.exec(query.limit(1)).first() is not None


def deleted_rows(session: Session, table: type[RowT], number: int | None) -> Page[RowT]:
    """The rows of this page, or of all pages, the last deleted first."""
    newest = (col(table.deleted_at).desc(), col(table.id).desc())
    is_deleted = col(table.deleted_at).is_not(None)
    size = DELETED_A_PAGE if number else MAX_ID
    return read_rows(session, table, is_deleted, size=size, number=number or 1, order=newest)
