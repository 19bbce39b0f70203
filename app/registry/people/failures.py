"""Failed logins slow down further ones: by name and by address, across processes.

A browser that has logged in as a person is counted by itself, so that nobody else's failures delay
it. A try is counted before the password is looked at and taken back if it was right: many at once
get no more tries than one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlmodel import Session, col, select

from app.registry.access.delays import (
    FORGET_SECONDS,
    MAX_DELAY_SECONDS,
    TooManyTries,
    delay_after,
    site_of,
)
from app.registry.db import Database, advisory_lock, utcnow
from app.registry.people.service import name_key
from app.registry.tables.people import LoginFailure
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import aware

KEPT = timedelta(days=1)
LOCK = 0x6C6F67  # of PostgreSQL, for as long as tries are counted

log = structlog.get_logger()


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
