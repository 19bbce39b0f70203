"""Keys of requests that create: a repeat of a request gets the first answer again.

A request holds its key by a lease that it renews, so the key of a process that was killed becomes
free. Only an answer that says that something was done is kept.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.db import database_now, upsert
from app.registry.errors import Conflict
from app.registry.tables.people import KeyedRequest

LEASE = timedelta(seconds=60)
KEPT = timedelta(hours=24)


class StillRunning(Conflict, title="Still running", code="still_running"):
    """The first request with this key has not been answered yet."""

    retry_after = 1


def hold_key(session: Session, caller: str, key: str, token: str) -> KeyedRequest | None:
    """Let the request with this random token hold the key, of which it is the first: None.

    Otherwise the answered request that has the key. Raises StillRunning.
    """
    now = database_now(session)
    ended = col(KeyedRequest.expires_at) <= now
    this = (col(KeyedRequest.caller) == caller) & (col(KeyedRequest.key) == key)
    session.connection().execute(sa.delete(KeyedRequest).where(this, ended))
    new = KeyedRequest(caller=caller, key=key, token=token, expires_at=now + LEASE)
    upsert(session, KeyedRequest, [new.model_dump()], {"key": key})  # whoever came first stays
    row = session.get_one(KeyedRequest, (caller, key))
    if row.token == token:
        return None
    if row.status is None:
        raise StillRunning(
            "A request with this Idempotency-Key is still running. Send it again in a moment."
        )
    return row


def keep_answer(session: Session, token: str, **answer: Any) -> None:
    """Keep the answer of a request; without one, prolong its lease, which must not have ended."""
    expires_at = database_now(session) + (KEPT if answer else LEASE)
    held = sa.update(KeyedRequest).where(
        col(KeyedRequest.token) == token, col(KeyedRequest.status).is_(None)
    )
    session.connection().execute(held.values(expires_at=expires_at, **answer))


def free_key(session: Session, token: str) -> None:
    """Forget a request of which nothing is kept."""
    session.connection().execute(sa.delete(KeyedRequest).where(col(KeyedRequest.token) == token))


def delete_expired(session: Session) -> None:
    """Delete answers that were kept for long enough, and requests of killed processes."""
    old = col(KeyedRequest.expires_at) <= database_now(session)
    session.connection().execute(sa.delete(KeyedRequest).where(old))
