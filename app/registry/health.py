"""Counts for the Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import Session, col, func, select

from app.registry.tables import JOB_TABLES, Adapter, Dataset


def count_jobs(session: Session) -> Iterator[tuple[str, str, int]]:
    """(queue, status, number of jobs) for every status that occurs."""
    for table in JOB_TABLES:
        rows = session.exec(select(col(table.status), func.count()).group_by(col(table.status)))
        yield from ((table.queue, status, count) for status, count in rows)


def count_kept(session: Session, table: type[Dataset] | type[Adapter]) -> int:
    """Number of rows that are not deleted."""
    kept = select(func.count()).select_from(table).where(col(table.deleted_at).is_(None))
    return session.exec(kept).one()
