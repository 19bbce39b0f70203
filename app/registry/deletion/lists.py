"""What is deleted and can be restored: lists, a page at a time, and what is deleted for good."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.errors import Conflict, NotFound
from app.registry.paging import Page, read_rows
from app.registry.tables.rows import Restorable, deleted_too

DELETED_A_PAGE = 24
RestorableT = TypeVar("RestorableT", bound=Restorable)


def deleted_row(session: Session, table: type[RestorableT], key: int) -> RestorableT:
    """A deleted row, locked. Raises NotFound, or Conflict if it is not deleted."""
    row = _locked_row(session, table, key)
    if row.deleted_at is None:
        raise Conflict(f"This {_noun(table)} is not deleted. Delete it first, then for good.")
    return row


def restore(session: Session, table: type[RestorableT], key: int) -> RestorableT:
    """Undo the deletion of a row that nothing was deleted with. Raises NotFound."""
    row = _locked_row(session, table, key)
    row.deleted_at = None
    session.add(row)
    session.flush()
    return row


def _locked_row(session: Session, table: type[RestorableT], key: int) -> RestorableT:
    row = session.get(table, key, with_for_update=True)
    if row is None:
        noun = _noun(table)
        raise NotFound(f"There is no such {noun}; it may have been deleted for good already.")
    return row


def _noun(table: type[Restorable]) -> str:
    return str(table.__tablename__).replace("_", " ")


def has_deleted(session: Session, table: type[Restorable]) -> bool:
    """True if there is a deleted row that can be restored."""
    return count_deleted(session, table) > 0


def count_deleted(
    session: Session, table: type[Restorable], *conditions: sa.ColumnElement[bool]
) -> int:
    """The number of deleted rows under these conditions."""
    query = select(func.count()).select_from(table)
    with deleted_too(session):
        return session.exec(query.where(col(table.deleted_at).is_not(None), *conditions)).one()


def deleted_rows(
    session: Session,
    table: type[RestorableT],
    *conditions: sa.ColumnElement[bool],
    page: int = 1,
    size: int | None = None,
    after: tuple[datetime, int] | None = None,
) -> Page[RestorableT]:
    """The rows of this page, the last deleted first.

    `after`: when the last row of the part before was deleted, and its id, for programs.
    """
    moment, key = col(table.deleted_at), sa.inspect(table).primary_key[0]
    rest = None
    if after is not None:
        rest = (moment < after[0]) | ((moment == after[0]) & (key < after[1]))
    with deleted_too(session):
        return read_rows(
            session,
            table,
            moment.is_not(None),
            *conditions,
            size=size or DELETED_A_PAGE,
            number=page,
            before=rest,
            order=(moment.desc(), key.desc()),
        )
