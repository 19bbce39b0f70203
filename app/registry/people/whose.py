"""Lists of one's own things, or of those of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlmodel import Session

from app.registry.actor import current_user_id

ONLY = "only"  # key in `Session.info`
MINE, SHARED = "mine", "shared"


@contextmanager
def only(session: Session, table: type[Any], whose: str | None) -> Iterator[None]:
    """Within the block this table has one's own things, or others'; all without accounts."""
    user_id = current_user_id()
    if whose in (MINE, SHARED) and user_id is not None:
        owner = table.owner_id
        wanted = owner == user_id if whose == MINE else owner != user_id
        session.info[ONLY] = with_loader_criteria(table, wanted, include_aliases=True)
    try:
        yield
    finally:
        session.info.pop(ONLY, None)


@event.listens_for(Session, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    option = state.session.info.get(ONLY)
    if option is not None and state.is_select and not state.is_column_load:
        state.statement = state.statement.options(option)
