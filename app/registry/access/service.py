"""Login sessions: open, find, list and end them. Rows that have run out are deleted."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.actor import acting_as
from app.registry.db import utcnow
from app.registry.errors import NotFound
from app.registry.tables.jobs import Event
from app.registry.tables.people import LoginSession, User
from app.registry.wording import aware

IDLE_END = timedelta(days=7)
ABSOLUTE_END = timedelta(days=30)
NOTE_EVERY = timedelta(minutes=5)
MOST_SESSIONS = 1_000
TOKEN_BYTES = 32


def token_hash(token: str) -> str:
    """The hash that is stored for a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def open_session(
    session: Session, *, secret_mark: str, address: str, browser: str, user_id: int | None = None
) -> tuple[str, LoginSession]:
    """A new session and its token, which is stored nowhere; rows that have run out go."""
    delete_expired(session)
    _make_room(session)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    now = utcnow()
    row = LoginSession(
        token_sha256=token_hash(token),
        secret_mark=secret_mark,
        user_id=user_id,
        created_at=now,
        last_used_at=now,
        expires_at=now + ABSOLUTE_END,
        address=address[:64],
        browser=browser[:200],
    )
    session.add(row)
    session.flush()
    with nullcontext() if user_id else acting_as(f"session:{row.key}"):
        _record(session, row.key, "opened")
    return token, row


def find_session(session: Session, sha256: str) -> LoginSession | None:
    """The session with this hash of its token, if it has not ended."""
    row = session.exec(select(LoginSession).where(LoginSession.token_sha256 == sha256)).first()
    return None if row is None or has_ended(row) else row


def find_person(session: Session, sha256: str) -> tuple[LoginSession, User] | None:
    """The session with this hash and its person, unless it has ended or they are disabled."""
    query = select(LoginSession, User).join(User, col(User.id) == LoginSession.user_id)
    found = session.exec(query.where(LoginSession.token_sha256 == sha256)).first()
    return None if found is None or has_ended(found[0]) or found[1].disabled_at else found


def has_ended(row: LoginSession) -> bool:
    """True if the session was not used for long, or has reached its absolute end."""
    now = utcnow()
    return aware(row.expires_at) <= now or aware(row.last_used_at) + IDLE_END <= now


def should_note_use(row: LoginSession) -> bool:
    """True if the time of the last use is older than a few minutes."""
    return utcnow() - aware(row.last_used_at) > NOTE_EVERY


def note_use(session: Session, session_id: int) -> None:
    """Write down that the session is used now."""
    used = sa.update(LoginSession).where(col(LoginSession.id) == session_id)
    session.connection().execute(used.values(last_used_at=utcnow()))


def list_sessions(session: Session, *, user_id: int | None = None) -> list[LoginSession]:
    """The sessions that have not ended, last used first; `user_id`: those of one person."""
    rows = session.exec(_sessions_of(user_id).order_by(col(LoginSession.last_used_at).desc()))
    return [row for row in rows if not has_ended(row)]


def _sessions_of(user_id: int | None) -> SelectOfScalar[LoginSession]:
    query = select(LoginSession)
    return query if user_id is None else query.where(LoginSession.user_id == user_id)


def end_session(session: Session, session_id: int, *, user_id: int | None = None) -> LoginSession:
    """Delete a session; `user_id`: of this person alone. Raises NotFound."""
    row = session.get(LoginSession, session_id)
    if row is None or user_id not in (None, row.user_id):
        raise NotFound("This session has already ended.")
    session.delete(row)
    _record(session, session_id, "ended")
    return row


def end_token(session: Session, sha256: str) -> None:
    """Delete the session with this hash of its token, if there is one."""
    row = session.exec(select(LoginSession).where(LoginSession.token_sha256 == sha256)).first()
    if row is not None:
        end_session(session, row.key)


def end_other_sessions(session: Session, kept: int | None, *, user_id: int | None = None) -> int:
    """Delete every session, or every one of a person, but `kept`; return their number."""
    others = [row for row in session.exec(_sessions_of(user_id)) if row.id != kept]
    for row in others:
        end_session(session, row.key)
    return len(others)


def end_sessions_of_other_secrets(session: Session, fits: Callable[[str], bool]) -> int:
    """Delete the sessions whose mark does not fit, and those that have run out."""
    delete_expired(session)
    marks = session.exec(select(LoginSession.secret_mark).distinct()).all()
    wrong = [mark for mark in marks if not fits(mark)]
    return _delete(session, col(LoginSession.secret_mark).in_(wrong)) if wrong else 0


def delete_expired(session: Session) -> int:
    """Delete the sessions that have ended by themselves; return their number."""
    now = utcnow()
    return _delete(
        session,
        (col(LoginSession.expires_at) <= now) | (col(LoginSession.last_used_at) <= now - IDLE_END),
    )


def _make_room(session: Session) -> None:
    """Delete the sessions that were not used for longest, so that one more fits."""
    newest = (
        select(LoginSession.id)
        .order_by(col(LoginSession.last_used_at).desc())
        .limit(MOST_SESSIONS - 1)
    )
    _delete(session, col(LoginSession.id).not_in(newest))


def _delete(session: Session, condition: sa.ColumnElement[bool]) -> int:
    found: sa.CursorResult[Any] = session.connection().execute(
        sa.delete(LoginSession).where(condition)
    )
    return found.rowcount


def _record(session: Session, session_id: int, kind: str) -> None:
    session.add(
        Event(subject=str(LoginSession.__tablename__), subject_id=session_id, kind=kind, data={})
    )
