"""Presence of workers: each updates its row every few seconds and deletes it when it stops."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import Database, database_now
from app.registry.tables.jobs import WorkerPresence

SILENT_SECONDS = 20.0
FORGOTTEN = timedelta(days=1)


class Presence:
    """The presence row of this process."""

    def __init__(self, queue: str) -> None:
        self.id = secrets.token_hex(8)
        self._queue = queue

    def announce(
        self,
        database: Database,
        *,
        device: str,
        machine: str = "",
        memory_bytes: int | None = None,
        problem: str = "",
        remedy: str = "",
    ) -> None:
        """Update this worker's row; delete rows of workers not seen for a day."""
        with database.write() as session:
            now = database_now(session)
            seen = sa.update(WorkerPresence).where(col(WorkerPresence.id) == self.id)
            facts: dict[str, Any] = {
                "device": device[:80],
                "machine": machine,
                "memory_bytes": memory_bytes,
                "problem": problem,
                "remedy": remedy,
            }
            if session.connection().execute(seen.values(seen_at=now, **facts)).rowcount:
                return
            old = sa.delete(WorkerPresence).where(col(WorkerPresence.seen_at) < now - FORGOTTEN)
            session.connection().execute(old)
            session.add(
                WorkerPresence(
                    id=self.id,
                    queue=self._queue,
                    host=socket.gethostname()[:255],
                    pid=os.getpid(),
                    **facts,
                    started_at=now,
                    seen_at=now,
                )
            )

    def leave(self, database: Database) -> None:
        """Delete this worker's row."""
        with database.write() as session:
            gone = sa.delete(WorkerPresence).where(col(WorkerPresence.id) == self.id)
            session.connection().execute(gone)


def present_workers(session: Session, *, queue: str | None = None) -> list[WorkerPresence]:
    """Workers seen within the last seconds, of one queue or all, oldest first."""
    since = database_now(session) - timedelta(seconds=SILENT_SECONDS)
    query = select(WorkerPresence).where(col(WorkerPresence.seen_at) >= since)
    if queue is not None:
        query = query.where(WorkerPresence.queue == queue)
    return list(session.exec(query.order_by(col(WorkerPresence.started_at))))
