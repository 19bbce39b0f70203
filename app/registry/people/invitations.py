"""Invitations: a link with which a person chooses a password, once and for some days; a reset, too.

The token of the link is stored as its hash.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.access.service import token_hash
from app.registry.db import utcnow
from app.registry.errors import AppError, Conflict, NotFound
from app.registry.people.service import get_user, record
from app.registry.tables.people import Invitation, User
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import aware

VALID = timedelta(hours=72)
PATH = "/invite/"
TOKEN_BYTES = 32
ASK_FOR_NEW = "Ask an administrator for a new one."
USED = "This link was used already. Without a password, ask an administrator for a new one."


class Gone(AppError, status=410, title="This link is no longer valid", code="gone"):
    """The link was valid once."""


def make_invitation(session: Session, user: User) -> str:
    """The token of a new link for this person; earlier ones are void. Raises Conflict."""
    if user.disabled_at is not None:
        raise Conflict(f"{user.name} is disabled. Enable this account first.")
    void_invitations(session, user.key)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    expires_at = utcnow() + VALID
    session.add(Invitation(token_sha256=token_hash(token), user_id=user.key, expires_at=expires_at))
    record(session, user, "link made")
    return token


def invitation_url(server: str, token: str) -> str:
    """The link, below the address of a server."""
    return f"{server.rstrip('/')}{PATH}{token}"


def find_invitation(session: Session, token: str) -> tuple[Invitation, User]:
    """The invitation of a link that can be used, and its person. Raises NotFound or Gone."""
    query = select(Invitation, User).join(User, col(User.id) == Invitation.user_id)
    found = session.exec(query.where(Invitation.token_sha256 == token_hash(token))).first()
    if found is None:
        raise NotFound(
            "There is no such invitation: the link is incomplete, or a newer one has replaced it. "
            + ASK_FOR_NEW
        )
    row, user = found
    if row.used_at is not None:
        raise Gone(USED)
    if aware(row.expires_at) <= utcnow():
        raise Gone(f"This link has expired. {ASK_FOR_NEW}")
    if user.disabled_at is not None:
        raise Gone(f"The account of {user.name} is disabled. An administrator can enable it.")
    return row, user


def mark_used(session: Session, row: Invitation) -> None:
    """Use an invitation. Raises Gone if another request just did."""
    unused = sa.update(Invitation).where(
        col(Invitation.id) == row.key, col(Invitation.used_at).is_(None)
    )
    done = session.exec(unused.values(used_at=utcnow()), execution_options=UNSYNCHRONIZED)
    if done.rowcount != 1:
        raise Gone(USED)


def withdraw(session: Session, user_id: int) -> User:
    """Void the link of a person; the password stays. Raises NotFound."""
    user = get_user(session, user_id)
    void_invitations(session, user.key)
    record(session, user, "link withdrawn")
    return user


def void_invitations(session: Session, user_id: int) -> None:
    """Delete the links of a person."""
    for row in session.exec(select(Invitation).where(Invitation.user_id == user_id)):
        session.delete(row)
    session.flush()
