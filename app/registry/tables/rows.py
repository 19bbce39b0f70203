"""The bases of tables: rows with a number, and rows that can be restored once deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlmodel import Field, Session, SQLModel, col

DELETED_TOO = "deleted_too"  # key in `Session.info`
UNSYNCHRONIZED = {"synchronize_session": False}  # option of changes that leave loaded rows as read
_hidden: list[Any] = []  # options of queries, one for each table of `hide_deleted`


class NumberedRow(SQLModel):
    """The id of a row, given when it is stored."""

    id: int | None = Field(default=None, primary_key=True)

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id


class Restorable(SQLModel):
    """The moment at which a row was deleted: it is in no list, and can be restored."""

    deleted_at: datetime | None = Field(default=None, description="In no list; can be restored.")


def hide_deleted(*tables: type[Restorable]) -> None:
    """Leave the deleted rows of tables out of all queries of sessions, but in `deleted_too`.

    For tables that are read in many places. Queries of `session.connection()` have them still.
    """
    for table in tables:
        is_there = col(table.deleted_at).is_(None)
        _hidden.append(with_loader_criteria(table, is_there, include_aliases=True))


@contextmanager
def with_info(session: Session, key: str, value: Any) -> Iterator[None]:
    """Within the block `session.info` has this value."""
    outer = session.info.get(key)
    session.info[key] = value
    try:
        yield
    finally:
        session.info[key] = outer


def deleted_too(session: Session) -> AbstractContextManager[None]:
    """Within the block the queries of a session find deleted rows, too."""
    return with_info(session, DELETED_TOO, True)


@event.listens_for(Session, "do_orm_execute")
def _hide(state: ORMExecuteState) -> None:
    is_own = state.is_select and not state.is_column_load and not state.is_relationship_load
    if is_own and not state.session.info.get(DELETED_TOO):
        state.statement = state.statement.options(*_hidden)
