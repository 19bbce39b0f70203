"""Moves blobs that no row refers to into the trash once they are a day old; deletes them later.

Blobs that are stored during a sweep are safe. A blob is stored before the row that refers to it, so
the blobs are listed before the references are read. Storing the same bytes again renews a blob, so
its age is checked again just before it is moved.

A sweep only reports if the store does not belong to this database alone (`blobs.ownership`), or if
it would take more than a small share of files that this database has never known. With `adopt` the
database becomes the owner and the sweep takes what it finds. Blobs older than the database are
taken only then: they may belong to another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlmodel import Session, col, select

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.registry.blobs import looks, ownership, thumbnails, trash
from app.registry.blobs.ownership import Marker, Owner, OwnerCheck
from app.registry.blobs.references import all_references, with_callback
from app.registry.blobs.trash import NOTHING, Amount
from app.registry.db import Database, database_now, utcnow
from app.registry.job_kinds.kinds import JobKind, SweepArgs, SweepResult
from app.registry.job_kinds.states import ACTIVE, JobStatus
from app.registry.jobs.service import orders_if_due
from app.registry.storage.store import BlobStat, BlobStore
from app.registry.tables.jobs import JOB_FILES_KEPT, Event, IoJob
from app.registry.wording import count_text, size_text

MIN_AGE = timedelta(hours=24)  # the row that refers to a blob is stored within this time
SWEEP_INTERVAL = timedelta(hours=24)
SWEEP_PRIORITY = 100  # after all other jobs
MAX_SHARE = 0.1  # of the files, and of their bytes, that a sweep takes without `--adopt`
ALWAYS_ALLOWED = Amount(20, 10**9)  # so much is usual, even in a small store
ADOPT_COMMAND = "brushwork sweep --adopt"
ADOPTED_FOR = timedelta(hours=48)  # what was there when the store was adopted may go so much later
EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass
class Survey:
    """The blobs of the store and what the rows say about them.

    `unknown`: hashes that no row has named, not even one whose references no longer count.
    """

    stored: dict[str, BlobStat]
    in_trash: dict[str, BlobStat]
    unreferenced: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)  # in the trash, though a row refers to them

    def blobs(self, hashes: Iterable[str]) -> list[BlobStat]:
        """The stored blobs with these hashes."""
        return [self.stored[sha256] for sha256 in hashes]

    def in_trash_for_good(self, taken: Iterable[BlobStat], before: datetime) -> list[BlobStat]:
        """Blobs in the trash since `before`, and those that the store has as well.

        Without what rows refer to, and what this sweep has just `taken`.
        """
        stays = self.needed | {blob.sha256 for blob in taken}
        return [
            blob
            for sha256, blob in self.in_trash.items()
            if sha256 not in stays and (blob.modified < before or sha256 in self.stored)
        ]


def survey_store(
    database: Database,
    store: BlobStore,
    jobs_since: datetime,
    on_item: Callable[[], None] = lambda: None,
) -> Survey:
    """List the trash, then the blobs, then read what the rows refer to.

    So what another sweep discards meanwhile is not in both lists. References of io jobs count if
    they ended after `jobs_since`. `on_item` is called for each item.
    """
    in_trash = {blob.sha256: blob for blob in with_callback(store.list_trash(), on_item)}
    stored = {blob.sha256: blob for blob in with_callback(store.list(), on_item)}
    survey = Survey(stored, in_trash)
    survey.unreferenced, survey.unknown = set(survey.stored), set(survey.stored)
    if survey.stored or survey.in_trash:
        for sha256, keeps in all_references(database, jobs_since, on_item):
            survey.unknown.discard(sha256)
            if keeps:
                survey.unreferenced.discard(sha256)
                if sha256 in survey.in_trash and sha256 not in survey.stored:
                    survey.needed.add(sha256)
    return survey


@dataclass(frozen=True)
class SweepSummary:
    """The files that a sweep moved to the trash, or would in a dry run or a report; the trash now.

    `report` says why it did nothing of this; `found` says who the files belonged to before.
    """

    files: int
    size_bytes: int
    report: str = ""
    found: str = ""
    brought_back: int = 0
    emptied: Amount = NOTHING
    trash: Amount = NOTHING


def sweep(
    database: Database,
    store: BlobStore,
    *,
    dry_run: bool = False,
    adopt: bool = False,
    now: datetime | None = None,
    on_item: Callable[[], None] = lambda: None,
) -> SweepSummary:
    """Move unreferenced blobs to the trash, and delete what has been there for long.

    With `dry_run`, only count them. `on_item` is called for each item and may raise to stop the
    sweep.
    """
    now = now or utcnow()
    found = (ownership.check if dry_run else ownership.record)(database, store)
    survey = survey_store(database, store, now - JOB_FILES_KEPT, on_item)
    taken = _candidates(survey, EARLIEST if adopt else _first_event_time(database), now - MIN_AGE)
    report = "" if adopt else _reason_to_report(found, survey, taken, now)
    brought_back, emptied = len(survey.needed), NOTHING
    if not dry_run:
        brought_back = _bring_back(store, survey, on_item)
        report = report or _take_over(database, store, found.owner, adopt=adopt)
    if not dry_run and not report:
        with database.write() as session:
            thumbnails.delete_unused(session)
            looks.delete_unused(session)
        candidates, taken = with_callback(taken, on_item), []
        for blob in candidates:
            if store.discard(blob.sha256, before=now - MIN_AGE):
                taken.append(blob)
        expired = survey.in_trash_for_good(taken, now - trash.RETENTION)
        emptied = trash.delete_all(store, with_callback(expired, on_item))
        ownership.record(database, store)
    amount, left = Amount.of(taken), trash.amount(store)
    return SweepSummary(
        amount.files, amount.size_bytes, report, found.sentence, brought_back, emptied, left
    )


def _candidates(survey: Survey, since: datetime | None, before: datetime) -> list[BlobStat]:
    """Unreferenced blobs that were stored in this time; none if it has no beginning."""
    if since is None:
        return []
    return [blob for blob in survey.blobs(survey.unreferenced) if since <= blob.modified < before]


def _bring_back(
    store: BlobStore, survey: Survey, on_item: Callable[[], None] = lambda: None
) -> int:
    """Move what rows refer to out of the trash; return the number of files that came back."""
    return sum(store.take_back(sha256) for sha256 in with_callback(survey.needed, on_item))


def _take_over(database: Database, store: BlobStore, owner: Owner, *, adopt: bool) -> str:
    """Make sure, after the long survey, that the store is this database's; else the reason."""
    if adopt:
        ownership.adopt(database, store)
    elif owner is Owner.NOBODY:
        ownership.claim(database, store)
    found = ownership.record(database, store)
    return "" if found.is_this else found.sentence


def _reason_to_report(
    found: OwnerCheck, survey: Survey, taken: list[BlobStat], now: datetime
) -> str:
    """Why this sweep must not take these blobs; empty if it may."""
    total = Amount.of(survey.stored.values())
    if found.owner is Owner.NOBODY:
        unknown = Amount.of(survey.blobs(survey.unknown))
        if _is_too_much(unknown, total):
            return f"{found.sentence} {_share_text(unknown, total)} unknown to this database."
    elif not found.is_this:
        return found.sentence
    foreign = [
        blob
        for blob in taken
        if blob.sha256 in survey.unknown and not _was_adopted(blob, found.marker, now)
    ]
    if _is_too_much(Amount.of(foreign), total):
        share = _share_text(Amount.of(foreign), total)
        return f"{share} unknown to this database, which is more than one sweep may take."
    return ""


def _is_too_much(part: Amount, total: Amount) -> bool:
    files = max(ALWAYS_ALLOWED.files, MAX_SHARE * total.files)
    size_bytes = max(ALWAYS_ALLOWED.size_bytes, MAX_SHARE * total.size_bytes)
    return part.files > files or part.size_bytes > size_bytes


def _was_adopted(blob: BlobStat, marker: Marker | None, now: datetime) -> bool:
    """True if the blob was there when the store was adopted, a short time ago."""
    adopted_at = marker.adopted_at if marker else None
    return (
        adopted_at is not None and blob.modified <= adopted_at and now <= adopted_at + ADOPTED_FOR
    )


def _share_text(part: Amount, total: Amount) -> str:
    files = f"{count_text(part.files)} of {count_text(total.files)} files"
    return f"{files} ({size_text(part.size_bytes)}) {'is' if part.files == 1 else 'are'}"


def _first_event_time(database: Database) -> datetime | None:
    """Time of the first event in this registry; None if there is none."""
    with database.read() as session:
        return session.exec(select(Event.at).order_by(col(Event.id)).limit(1)).first()


def empty_trash(database: Database, store: BlobStore, *, dry_run: bool = False) -> SweepSummary:
    """Delete the trash for good, but what rows refer to comes back out of it.

    Only reports if the store does not belong to this database alone.
    """
    now = utcnow()
    found = (ownership.check if dry_run else ownership.record)(database, store, now=now)
    survey = survey_store(database, store, now - JOB_FILES_KEPT)
    gone = [blob for sha256, blob in survey.in_trash.items() if sha256 not in survey.needed]
    brought_back, emptied = len(survey.needed), Amount.of(gone)
    if not dry_run:
        brought_back = _bring_back(store, survey)
        emptied = NOTHING if found.sentence else trash.delete_all(store, gone)
    left = trash.amount(store)
    return SweepSummary(0, 0, found.sentence, found.sentence, brought_back, emptied, left)


def warning(database: Database, store: BlobStore) -> str:
    """Why sweeps only report, as of now or of the last one; empty if they do not."""
    found = ownership.check(database, store)
    if found.sentence and found.owner is not Owner.NOBODY:
        return found.sentence
    with database.read() as session:
        last = session.exec(
            select(IoJob)
            .where(IoJob.kind == JobKind.SWEEP, IoJob.status == JobStatus.SUCCEEDED)
            .order_by(col(IoJob.id).desc())
            .limit(1)
        ).first()
    if last is None or last.finished_at is None:
        return ""
    adopted_at = found.marker.adopted_at if found.marker else None
    if adopted_at is not None and adopted_at > last.finished_at:
        return ""
    return last.outcome(SweepResult).report or ""


def is_due(session: Session) -> bool:
    """True if no sweep is queued or running, and none ended within a day."""
    ended = col(IoJob.finished_at) >= database_now(session) - SWEEP_INTERVAL
    active = col(IoJob.status).in_(ACTIVE)
    recent = select(IoJob.id).where(IoJob.kind == JobKind.SWEEP, ended | active)
    return session.exec(recent.limit(1)).first() is None


order_if_due = orders_if_due(is_due, SweepArgs(), priority=SWEEP_PRIORITY)
