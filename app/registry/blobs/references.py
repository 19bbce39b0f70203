"""Which of some files rows refer to; a `survey` answers that for all files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from app.registry.blobs.survey import HASH, ROWS_AT_ONCE, keeps, reference_columns
from app.registry.db import in_chunks, utcnow
from app.registry.tables.jobs import JOB_FILES_KEPT

HASH_LENGTH = 64


def find_referenced(session: Session, hashes: Iterable[str]) -> dict[str, str]:
    """The hashes among these that rows refer to, each with the name of one such table."""
    left, found = set(hashes), dict[str, str]()
    since = utcnow() - JOB_FILES_KEPT
    for table in SQLModel.metadata.sorted_tables:
        for sha256 in _named_in(session, table, left, since):
            found.setdefault(sha256, table.name)
        left -= found.keys()
    return found


def _named_in(
    session: Session, table: sa.Table, hashes: set[str], since: datetime
) -> Iterator[str]:
    named, texts = reference_columns(table)
    connection = session.connection()
    if hashes and named:
        for chunk in in_chunks(hashes):
            for column in named:
                query = sa.select(column).where(column.in_(chunk), keeps(table, since))
                yield from connection.execute(query).scalars()
    if hashes and texts:
        for column in texts:
            text = sa.cast(column, sa.Text)
            query = sa.select(text).where(sa.func.length(text) >= HASH_LENGTH, keeps(table, since))
            rows = connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
            for value in rows.scalars():
                yield from hashes.intersection(HASH.findall(value))
