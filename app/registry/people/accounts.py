"""Log in with a name and a password, change the password, and use the link of an invitation.

Passwords are hashed outside of sessions of the database.

Failed logins slow down further ones: by name and by address, across processes. A browser that has
logged in as a person is counted by itself, so that nobody else's failures delay it. A try is
counted before the password is looked at and taken back if it was right: many at once get no more
tries than one by one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlmodel import Session, col, select

from app.registry.access import service as sessions
from app.registry.access.delays import (
    FORGET_SECONDS,
    MAX_DELAY_SECONDS,
    TooManyTries,
    delay_after,
    site_of,
)
from app.registry.access.secret_marks import PERSON
from app.registry.actor import Visibility, acting_as
from app.registry.db import Database, advisory_lock, utcnow
from app.registry.errors import AppError, Conflict, invalid_field
from app.registry.people import invitations, passwords
from app.registry.people.service import find_user, get_user, name_key, principal_of, record
from app.registry.tables.people import LoginFailure, User
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import aware

KEPT = timedelta(days=1)
LOCK = 0x6C6F67  # of PostgreSQL, for as long as tries are counted
NONCE_BYTES = 16

log = structlog.get_logger()


class WrongLogin(AppError, status=403, title="Wrong name or password", code="wrong_login"):
    """The name or the password is wrong; which one is not said."""


@dataclass(frozen=True)
class Sender:
    """Where a login comes from; `known`: values of cookies by the ids of people who logged in."""

    address: str
    browser: str = ""
    known: dict[int, str] | None = None


@dataclass(frozen=True)
class LoggedIn:
    """A new session: its token, and what the browser keeps to be known as this person's."""

    user_id: int
    token: str
    known: str


def log_in(database: Database, name: str, password: str, sender: Sender) -> LoggedIn:
    """A session for who knows the password of this name.

    Raises WrongLogin, TooManyTries or Busy. People who are unknown, disabled or without a password
    are refused in the same words and time as those with another one.
    """
    with database.read() as session:
        user = find_user(session, name)
    stored = None if user is None or user.disabled_at else user.password_hash
    right = _check(database, user, name, stored, password, sender)
    if user is None or stored is None or not right:
        log.warning("login refused", address=site_of(sender.address))
        raise WrongLogin("The name or the password is wrong.")
    new = passwords.renewed(stored, password)
    with database.write() as session:
        user = get_user(session, user.key)
        if user.disabled_at or user.password_hash != stored:  # a moment ago
            raise WrongLogin("The name or the password is wrong.")
        user.password_hash = new or stored
        return _open(session, user, sender)


def change_password(
    database: Database, user_id: int, old: str, new: str, sender: Sender, *, kept: int | None
) -> str:
    """Change a person's password, and end their sessions but `kept`; the browser's new value.

    Raises InvalidInput for `old_password` or `password`, TooManyTries, Busy or Conflict.
    """
    with database.read() as session:
        user = get_user(session, user_id)
    stored = user.password_hash
    if not _check(database, user, user.name, stored, old, sender):
        raise invalid_field("old_password", "This is not your present password.")
    hashed = passwords.hash_new(new, user.name)
    with database.write() as session:
        user = get_user(session, user_id)
        if user.password_hash != stored:
            raise Conflict("The password was changed a moment ago. Log in again.")
        user.password_hash = hashed
        record(session, user, "password changed")
        invitations.void_invitations(session, user_id)
        sessions.end_other_sessions(session, kept, user_id=user_id)
    return known_value(user)


def use_invitation(database: Database, token: str, password: str, sender: Sender) -> LoggedIn:
    """Set the password of the person whom a link is for, and log them in; other sessions end.

    Raises NotFound, Gone, InvalidInput for `password`, or Busy.
    """
    with database.read() as session:
        _, user = invitations.find_invitation(session, token)
    hashed = passwords.hash_new(password, user.name)
    with database.write() as session:
        row, user = invitations.find_invitation(session, token)
        invitations.mark_used(session, row)
        user.password_hash = hashed
        with acting_as(f"user:{user.key}"):
            record(session, user, "password chosen")
        sessions.end_other_sessions(session, None, user_id=user.key)
        return _open(session, user, sender)


def _check(
    database: Database,
    user: User | None,
    name: str,
    stored: str | None,
    password: str,
    sender: Sender,
) -> bool:
    """True if the password is right; a wrong one is counted. Raises TooManyTries or Busy."""
    known = (sender.known or {}).get(user.key) if user else None
    if user is not None and known is not None and is_known(user, known):
        subjects = [f"browser:{_nonce_of(known)}"]
    else:
        subjects = subjects_of(name, sender.address)
    count_try(database, subjects)
    try:
        right = passwords.is_right(stored, password)
    except passwords.Busy:
        take_back(database, subjects)
        raise
    if right:
        take_back(database, subjects)
    return right


def _open(session: Session, user: User, sender: Sender) -> LoggedIn:
    user.seen_at = utcnow()
    principal = principal_of(user, makes=Visibility.STUDIO, address=site_of(sender.address))
    with acting_as(f"user:{user.key}", principal):
        token, _ = sessions.open_session(
            session,
            secret_mark=PERSON,
            address=site_of(sender.address),
            browser=sender.browser,
            user_id=user.key,
        )
    return LoggedIn(user.key, token, known_value(user))


# Failed logins


def subjects_of(name: str, address: str) -> list[str]:
    """What tries from an unknown browser are counted by; names are kept as hashes.

    Somebody may have typed their password there.
    """
    hashed = hashlib.sha256(name_key(name).encode("utf-8", "replace")).hexdigest()
    return [f"name:{hashed}", f"address:{site_of(address)}"]


def count_try(database: Database, subjects: list[str]) -> None:
    """Count a try as failed. Raises TooManyTries if it is not looked at now."""
    with database.read() as session:
        _require_allowed(session, subjects)
    with database.write() as session:
        advisory_lock(session, LOCK)
        rows = _require_allowed(session, subjects)
        now = utcnow()
        old = sa.delete(LoginFailure).where(col(LoginFailure.last_at) < now - KEPT)
        session.exec(old, execution_options=UNSYNCHRONIZED)
        for subject in subjects:
            row = rows.get(subject)
            count = _count(row) + 1 if row else 1.0
            if row is None or now - aware(row.last_at) > KEPT:
                row = LoginFailure(subject=subject)
            row.count, row.last_at = count, now
            session.add(row)


def take_back(database: Database, subjects: list[str]) -> None:
    """A try that was counted was right, or was not looked at."""
    with database.write() as session:
        advisory_lock(session, LOCK)
        for row in _rows(session, subjects).values():
            row.count = max(0.0, row.count - 1)
            if row.count == 0:
                session.delete(row)


def _rows(session: Session, subjects: Iterable[str]) -> dict[str, LoginFailure]:
    query = select(LoginFailure).where(col(LoginFailure.subject).in_(list(subjects)))
    return {row.subject: row for row in session.exec(query)}


def _count(row: LoginFailure) -> float:
    """The failures of a row that are not forgotten yet."""
    seconds = (utcnow() - aware(row.last_at)).total_seconds()
    return max(0.0, row.count - max(0.0, seconds) / FORGET_SECONDS)


def _require_allowed(session: Session, subjects: list[str]) -> dict[str, LoginFailure]:
    rows = _rows(session, subjects)
    for subject, row in rows.items():
        since = (utcnow() - aware(row.last_at)).total_seconds()
        wait = min(delay_after(round(row.count)) - since, MAX_DELAY_SECONDS)
        if wait > 0:
            log.info("login delayed", by=subject.partition(":")[0], seconds=round(wait))
            raise TooManyTries(wait)
    return rows


# Browsers that have logged in as a person


def known_value(user: User) -> str:
    """What tells that a browser has logged in as this person; void after their next password.

    It is signed with the hash of the password, which no browser gets, so that nothing is stored.
    """
    nonce = secrets.token_hex(NONCE_BYTES)
    return f"{nonce}.{_signature(user, nonce)}"


def is_known(user: User, value: str) -> bool:
    """True if this value was made for this person."""
    signature = value.rpartition(".")[2]
    return bool(user.password_hash) and hmac.compare_digest(
        signature.encode(), _signature(user, _nonce_of(value)).encode()
    )


def _nonce_of(value: str) -> str:
    return value.rpartition(".")[0]


def _signature(user: User, nonce: str) -> str:
    key = (user.password_hash or "").encode()
    return hmac.new(key, f"known:{user.key}:{nonce}".encode(), hashlib.sha256).hexdigest()
