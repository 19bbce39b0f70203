"""Lists of what is deleted and can be restored, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlmodel import Session, col, func, select

from app.registry.paging import page_count
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Dataset

DELETED_A_PAGE = 24
ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT", Adapter, Dataset)


@dataclass(frozen=True)
class DeletedPage(Generic[ItemT]):
    """A page of deleted things, and their total number."""

    items: list[ItemT]
    total: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return page_count(self.total, DELETED_A_PAGE)


def has_deleted(session: Session, table: type[Adapter] | type[Dataset]) -> bool:
    """True if there is a deleted row that can be restored."""
    query = select(table.id).where(col(table.deleted_at).is_not(None))
    return session.exec(query.limit(1)).first() is not None


def count_deleted(session: Session, table: type[Adapter] | type[Dataset]) -> int:
    """Number of deleted rows."""
    query = select(func.count()).select_from(table)
    return session.exec(query.where(col(table.deleted_at).is_not(None))).one()


def deleted_rows(session: Session, table: type[RowT], page: int) -> Sequence[RowT]:
    """The rows of this page, the last deleted first."""
    newest = (col(table.deleted_at).desc(), col(table.id).desc())
    query = select(table).where(col(table.deleted_at).is_not(None)).order_by(*newest)
    return session.exec(query.offset((page - 1) * DELETED_A_PAGE).limit(DELETED_A_PAGE)).all()
