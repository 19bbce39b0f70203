"""What happens to things when a person leaves, or when all accounts end."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from app.registry.access.secret_marks import PERSON
from app.registry.actor import FIRST_USER, Role, Visibility
from app.registry.db import in_chunks, upsert
from app.registry.errors import Conflict
from app.registry.people.service import record
from app.registry.tables.all import THINGS
from app.registry.tables.jobs import Event
from app.registry.tables.people import (
    AccessToken,
    DeviceUse,
    Invitation,
    LoginFailure,
    LoginSession,
    Share,
    User,
)
from app.registry.tables.renders import SourceUser
from app.registry.tables.rows import UNSYNCHRONIZED

ACCOUNTS = (Share, AccessToken, Invitation, LoginFailure, DeviceUse, SourceUser, User)
"""The tables that are empty without accounts."""


def transfer(session: Session, leaver: User, heir: User) -> int:
    """Make all that a person has another's, and share with them what was shared with the first.

    The number of things. Raises Conflict.
    """
    if leaver.key == heir.key:
        raise Conflict(f"{leaver.name} has these things already. Name two people.")
    if heir.disabled_at is not None:
        raise Conflict(f"{heir.name} is disabled.")
    if heir.role == Role.VIEWER:
        raise Conflict(f"{heir.name} is a viewer, who changes nothing. Change the role first.")
    moved = 0
    for table in THINGS:
        moved += _change(session, table, {"owner_id": heir.key}, table.owner_id == leaver.key)
    for share in session.exec(select(Share).where(Share.user_id == leaver.key)).all():
        there = session.get(Share, (share.kind, share.thing_id, heir.key))
        may_edit = share.may_edit or (there is not None and there.may_edit)
        session.merge(
            Share(kind=share.kind, thing_id=share.thing_id, user_id=heir.key, may_edit=may_edit)
        )
        session.delete(share)
    session.flush()
    uploads = session.exec(select(SourceUser.sha256).where(SourceUser.user_id == leaver.key)).all()
    for chunk in in_chunks(uploads):
        rows = [{"sha256": sha256, "user_id": heir.key} for sha256 in chunk]
        upsert(session, SourceUser, rows, {"user_id": heir.key})
    _delete(session, SourceUser, col(SourceUser.user_id) == leaver.key)
    for table in THINGS:  # nobody shares with themselves
        own = sa.select(col(table.id)).where(col(table.owner_id) == heir.key)
        shared = (col(Share.kind) == str(table.__tablename__)) & (col(Share.user_id) == heir.key)
        _delete(session, Share, shared & col(Share.thing_id).in_(own))
    record(session, leaver, "transferred", to=str(heir.key))
    return moved


def private_things(session: Session) -> dict[str, int]:
    """How many private things each person has, also deleted ones, by name."""
    found: dict[str, int] = {}
    for table in THINGS:
        number = sa.func.count(col(table.id))
        query = select(User.name, number).join(table, col(table.owner_id) == User.id)
        private = query.where(table.visibility == Visibility.PRIVATE).group_by(col(User.name))
        for name, count in session.exec(private):
            found[name] = found.get(name, 0) + count
    return dict(sorted(found.items()))


def leave_accounts(session: Session) -> None:
    """Delete all people, their sessions, tokens, links and shares; everything is one person's."""
    of_nobody = {"owner_id": FIRST_USER, "visibility": Visibility.STUDIO.value}
    for table in THINGS:
        _change(session, table, of_nobody, sa.true())
    for of_people in ACCOUNTS:
        _delete(session, of_people, sa.true())
    _change(session, Event, {"user_id": None}, sa.true())  # later people have the same numbers
    _delete(session, LoginSession, col(LoginSession.secret_mark) == PERSON)


def _change(session: Session, table: Any, values: dict[str, Any], which: Any) -> int:
    done = session.exec(
        sa.update(table).where(which).values(**values),
        execution_options=UNSYNCHRONIZED,
    )
    return int(done.rowcount)


def _delete(session: Session, table: type[SQLModel], which: Any) -> None:
    session.exec(sa.delete(table).where(which), execution_options=UNSYNCHRONIZED)
