"""Damaged and missing files in the database: note them, look them up, forget those of sound ones.

A file that is stored again is sound: whoever stores the row that refers to it calls
`forget_problems`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import cached_by_snapshot, in_chunks, upsert, utcnow
from app.registry.tables.blobs import BlobCheck, FileProblem


def note(session: Session, checked: Iterable[str], problem: FileProblem | None = None) -> None:
    """Store the result of a check of these files just now; None: they are sound."""
    values = {"checked_at": utcnow(), "problem": problem}
    for hashes in in_chunks(set(checked)):
        upsert(session, BlobCheck, [{"sha256": name} | values for name in hashes], values)


def problems(session: Session, hashes: Collection[str] | None = None) -> dict[str, FileProblem]:
    """The problem of each damaged or missing file; of these files, or of all."""
    if hashes is None:
        return dict(_all_problems(session))
    found: dict[str, FileProblem] = {}
    for part in in_chunks(hashes):
        found |= _read_problems(session, col(BlobCheck.sha256).in_(part))
    return found


@cached_by_snapshot
def _all_problems(session: Session) -> dict[str, FileProblem]:
    return _read_problems(session)


def _read_problems(session: Session, *conditions: sa.ColumnElement[bool]) -> dict[str, FileProblem]:
    # unlike for IS NOT NULL, SQLite looks only at the files that have a problem
    has_problem = col(BlobCheck.problem) > ""
    query = select(BlobCheck.sha256, BlobCheck.problem).where(has_problem, *conditions)
    return {sha256: FileProblem(problem) for sha256, problem in session.exec(query) if problem}


def forget_problems(session: Session, *hashes: str | None) -> None:
    """Forget what was wrong with these files, which were just stored or are gone for good."""
    for part in in_chunks({sha256 for sha256 in hashes if sha256}):
        statement = sa.delete(BlobCheck).where(
            col(BlobCheck.sha256).in_(part), col(BlobCheck.problem).is_not(None)
        )
        session.connection().execute(statement)


def keep_only(session: Session, hashes: Collection[str]) -> None:
    """Forget the checks of all files but these: they are gone, and nothing needs them."""
    known = session.exec(select(BlobCheck.sha256, BlobCheck.problem)).all()
    gone = {sha256 for sha256, _ in known} - set(hashes)
    for part in in_chunks(gone):
        session.connection().execute(sa.delete(BlobCheck).where(col(BlobCheck.sha256).in_(part)))
