"""Access tokens of programs: stored as hashes, found by them, valid for some time."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.access.service import token_hash
from app.registry.db import utcnow
from app.registry.errors import NotFound
from app.registry.people.service import record
from app.registry.tables.people import AccessToken, User
from app.registry.tables.rows import deleted_too
from app.registry.wording import aware

PREFIX = "bw_"
TOKEN_BYTES = 32
USUAL_DAYS = 90
NOTE_EVERY = timedelta(hours=1)
FIND = (  # made once, because every request of a program needs it
    select(AccessToken, User)
    .join(User, col(User.id) == AccessToken.user_id)
    .where(AccessToken.token_sha256 == sa.bindparam("sha256"))
)


def make_token(
    session: Session, user: User, name: str, scope: str, *, days: int = USUAL_DAYS
) -> tuple[str, AccessToken]:
    """A new token and its row; the token itself is stored nowhere."""
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    row = AccessToken(
        token_sha256=token_hash(token),
        user_id=user.key,
        name=name,
        scope=scope,
        expires_at=utcnow() + timedelta(days=days),
    )
    session.add(row)
    session.flush()
    record(session, user, "token made", scope=scope)
    return token, row


def find_token(session: Session, token: str) -> tuple[AccessToken, User] | None:
    """The row and the person of a token that has not expired; None if they are disabled."""
    with deleted_too(session):  # so that the statement is taken as it is
        found = session.exec(FIND, params={"sha256": token_hash(token)}).first()
    if found is None or aware(found[0].expires_at) <= utcnow() or found[1].disabled_at:
        return None
    return found


def should_note_use(row: AccessToken) -> bool:
    """True if the time of the last use is older than an hour."""
    last: datetime | None = row.last_used_at
    return last is None or utcnow() - aware(last) > NOTE_EVERY


def note_use(session: Session, token_id: int) -> None:
    """Write down that the token is used now."""
    used = sa.update(AccessToken).where(col(AccessToken.id) == token_id)
    session.connection().execute(used.values(last_used_at=utcnow()))


def list_tokens(session: Session, user_id: int) -> list[AccessToken]:
    """The tokens of a person, newest first."""
    mine = select(AccessToken).where(AccessToken.user_id == user_id)
    return list(session.exec(mine.order_by(col(AccessToken.id).desc())))


def delete_token(session: Session, user: User, token_id: int) -> None:
    """End a token of this person. Raises NotFound."""
    row = session.get(AccessToken, token_id)
    if row is None or row.user_id != user.key:
        raise NotFound("There is no such token.")
    session.delete(row)
    record(session, user, "token deleted")
