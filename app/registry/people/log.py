"""The audit log: what people did, newest first. It has kinds and ids, never texts of things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import Database, utcnow
from app.registry.paging import Page, read_rows
from app.registry.people.service import find_user
from app.registry.people.shares import pages_of
from app.registry.tables.jobs import Event
from app.registry.tables.people import LoginSession, User
from app.registry.tables.rows import UNSYNCHRONIZED

SIZE = 50
EXPORTED = 100_000  # events of one file, the newest
BATCH = 1_000
ADDRESSES_KEPT = timedelta(days=90)
OF_PEOPLE = (str(User.__tablename__), str(LoginSession.__tablename__))
WORDS = ("role", "visibility", "scope", "quota")  # of `Event.data`: no texts of people
PERSON = {"shared": "user", "unshared": "user", "transferred": "to"}
"""The word of `Event.data` that has the number of another person, by the kind of event."""


@dataclass(frozen=True)
class LogFilter:
    """Which events; empty: all. `since` and `until` are moments, the last one excluded."""

    person: str = ""
    kind: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """An event; `who`: the name of the person, or what acted without one.

    `page`: the address of what it is about, in the log itself and while that is there.
    """

    id: int
    at: datetime
    who: str
    kind: str
    subject: str
    subject_id: int
    detail: str
    address: str
    page: str = ""


def read_log(session: Session, wanted: LogFilter, *, number: int = 1) -> Page[Entry]:
    """A page of the log."""
    found = read_rows(session, Event, *_conditions(session, wanted), size=SIZE, number=number)
    pages = pages_of(session, ((row.subject, row.subject_id) for row in found.items))
    return found.of(_entries(session, found.items, pages))


def export_log(database: Database, wanted: LogFilter) -> Iterator[Entry]:
    """The newest events, in sessions that are short."""
    before, left = None, EXPORTED
    while left > 0:
        with database.read() as session:
            conditions = _conditions(session, wanted)
            if before is not None:
                conditions.append(col(Event.id) < before)
            query = select(Event).where(*conditions).order_by(col(Event.id).desc())
            rows = session.exec(query.limit(min(BATCH, left))).all()
            entries = _entries(session, rows)
        yield from entries
        if len(rows) < BATCH:
            return
        before, left = rows[-1].key, left - len(rows)


def log_choices(session: Session) -> tuple[list[str], list[str]]:
    """The kinds and the subjects of events that are in the log."""
    shown = _conditions(session, LogFilter())
    kinds = session.exec(select(Event.kind).where(*shown).distinct().order_by(Event.kind)).all()
    subjects = session.exec(
        select(Event.subject).where(*shown).distinct().order_by(Event.subject)
    ).all()
    return list(kinds), list(subjects)


def forget_addresses(session: Session) -> None:
    """Empty the addresses of events that are older than `ADDRESSES_KEPT`."""
    old = (col(Event.at) < utcnow() - ADDRESSES_KEPT) & col(Event.address).is_not(None)
    session.exec(
        sa.update(Event).where(old).values(address=None),
        execution_options=UNSYNCHRONIZED,
    )


def _conditions(session: Session, wanted: LogFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [
        col(Event.user_id).is_not(None) | col(Event.subject).in_(OF_PEOPLE)
    ]
    if wanted.person:
        user = find_user(session, wanted.person)
        key = user.key if user else 0
        is_about = (col(Event.subject) == OF_PEOPLE[0]) & (col(Event.subject_id) == key)
        found.append((col(Event.user_id) == key) | is_about)
    if wanted.kind:
        found.append(col(Event.kind) == wanted.kind)
    if wanted.subject:
        found.append(col(Event.subject) == wanted.subject)
    if wanted.since:
        found.append(col(Event.at) >= wanted.since)
    if wanted.until:
        found.append(col(Event.at) < wanted.until)
    return found


def _entries(
    session: Session, rows: Any, pages: Mapping[tuple[str, int], str] | None = None
) -> list[Entry]:
    users = {user.key: user.name for user in session.exec(select(User))}
    return [
        Entry(
            id=row.key,
            at=row.at,
            who=users.get(row.user_id, "") or (row.actor or ""),
            kind=row.kind,
            subject=row.subject,
            subject_id=row.subject_id,
            detail=_detail(row, users),
            address=row.address or "",
            page=(pages or {}).get((row.subject, row.subject_id), ""),
        )
        for row in rows
    ]


def _detail(event: Event, users: Mapping[int, str]) -> str:
    """What is known of an event in words: another person and their right, but no texts."""
    found = [str(event.data[word]) for word in WORDS if word in event.data]
    if event.kind in PERSON:
        found.append(users.get(int(event.data[PERSON[event.kind]]), ""))
    if event.kind == "shared":
        found.append("may edit" if event.data["edits"] else "may see")
    return ", ".join(found)
