"""A sweep takes nothing that may be another's, and what it takes can come back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, delete

from app.registry.blobs import ownership, trash
from app.registry.blobs import sweep as sweeping
from app.registry.blobs.ownership import Owner
from app.registry.blobs.sweep import SweepSummary, empty_trash, sweep
from app.registry.blobs.trash import Amount
from app.registry.db import Database, utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import JOB_FILES_KEPT, Event, IoJob

TOMORROW = timedelta(hours=25)


@dataclass(frozen=True)
class Kept:
    """A database and a store; jobs that wait stand for all rows that refer to files."""

    database: Database
    store: BlobStore

    def blobs(self, *names: object) -> set[str]:
        """The hashes of stored blobs with these names as content."""
        return {self.store.put_bytes(str(name).encode()).sha256 for name in names}

    def refer_to(self, hashes: set[str], **values: Any) -> int:
        """Store a row that refers to these blobs, and an event; return the number of the event."""
        with self.database.write() as session:
            session.add(IoJob(kind="x", args={"files": sorted(hashes)}, **values))
            event = Event(
                at=utcnow() - timedelta(hours=1), subject="x", subject_id=1, kind="queued"
            )
            session.add(event)
            session.flush()
            return event.id or 0

    def go_back_to(self, event: int) -> None:
        """Become the database of the hour of this event, as a restored one is."""
        with self.database.write() as session:
            session.exec(delete(Event).where(col(Event.id) > event))
            session.exec(delete(IoJob).where(col(IoJob.id) > event))

    def sweep(self, *, after: timedelta = TOMORROW, **options: Any) -> SweepSummary:
        """A sweep as of tomorrow or later."""
        return sweep(self.database, self.store, now=utcnow() + after, **options)

    def left(self) -> set[str]:
        """The hashes that are stored."""
        return {blob.sha256 for blob in self.store.list()}

    def in_trash(self) -> set[str]:
        """The hashes in the trash."""
        return {blob.sha256 for blob in self.store.list_trash()}

    def owner(self) -> Owner:
        """The owner of the store, as this database sees it."""
        return ownership.check(self.database, self.store).owner


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    """A registry with one event of 30 days ago, which owns its empty store.

    SQLite with a folder, PostgreSQL with a bucket.
    """
    url = None if database.is_sqlite else "memory://"
    kept = Kept(database, open_store(url, tmp_path / "data"))
    with database.write() as session:
        long_ago = utcnow() - timedelta(days=30)
        session.add(Event(at=long_ago, subject="x", subject_id=1, kind="queued"))
        session.add(IoJob(kind="x"))
    ownership.record(kept.database, kept.store)
    return kept


@pytest.fixture
def other(kept: Kept, other_database: Database) -> Kept:
    """Another registry on the same store."""
    other = replace(kept, database=other_database)
    other.refer_to(set())
    return other


def test_a_database_of_an_earlier_hour_beside_all_files_costs_none(kept: Kept) -> None:
    old = kept.blobs("image 1", "image 2")
    earlier = kept.refer_to(old)
    ownership.record(kept.database, kept.store)
    adapter = kept.blobs("weights", "download", "proof")
    kept.refer_to(adapter)
    kept.sweep()
    kept.go_back_to(earlier)

    for dry_run in (True, False):
        swept = kept.sweep(dry_run=dry_run)
        assert swept.report.startswith("This database is older than the files: ")
        assert (swept.files, kept.left(), kept.in_trash()) == (3, old | adapter, set())

    kept.refer_to(kept.blobs("image 3"))  # it goes on, with the same numbers
    assert "Another copy of this database used the files since" in kept.sweep().report
    assert kept.left() >= adapter

    swept = kept.sweep(adopt=True)
    assert (swept.files, swept.report) == (3, "")
    assert kept.in_trash() == adapter
    assert kept.owner() is Owner.THIS

    assert trash.restore(kept.store).files == 3
    assert (kept.left() >= old | adapter, kept.in_trash()) == (True, set())


def test_what_rows_refer_to_again_comes_back_by_itself(kept: Kept) -> None:
    files = kept.blobs("weights", "download")
    kept.sweep()
    assert kept.in_trash() == files
    kept.refer_to(files)
    assert kept.sweep(dry_run=True).brought_back == 2
    assert kept.in_trash() == files
    assert kept.sweep().brought_back == 2
    assert (kept.left(), kept.in_trash()) == (files, set())


def test_another_database_takes_nothing_and_gets_its_files_back(kept: Kept, other: Kept) -> None:
    mine, theirs = kept.blobs("mine"), kept.blobs("theirs")
    kept.refer_to(mine)
    other.refer_to(theirs)
    kept.sweep()
    assert kept.in_trash() == theirs
    swept = other.sweep()
    assert swept.report.startswith("The files belong to another database: registry ")
    assert swept.brought_back == 1
    assert kept.left() == mine | theirs


def test_once_another_database_was_seen_the_owner_takes_nothing_either(
    kept: Kept, other: Kept
) -> None:
    kept.blobs("of whom?")
    other.sweep()
    swept = kept.sweep()
    assert swept.report.startswith("Two databases use these files: ")
    assert len(kept.left()) == 1
    assert kept.sweep(adopt=True).files == 1


def test_an_owner_that_changes_while_a_sweep_looks_takes_nothing(kept: Kept, other: Kept) -> None:
    kept.blobs("of whom?")
    adopted: list[object] = []

    def adopt_once() -> None:
        if not adopted:
            adopted.append(ownership.adopt(other.database, other.store))

    assert "belong to another database" in kept.sweep(on_item=adopt_once).report
    assert len(kept.left()) == 1


def test_more_than_a_small_share_of_unknown_files_is_only_reported(kept: Kept) -> None:
    unknown = kept.blobs(*range(21))
    known = kept.blobs(*range(100, 110))
    kept.refer_to(known)
    for dry_run in (True, False):
        swept = kept.sweep(dry_run=dry_run)
        assert swept.report.startswith("21 of 31 files (32 B) are unknown to this database")
        assert swept.files == 21
    assert kept.left() == unknown | known
    assert kept.sweep(adopt=True).files == 21
    assert kept.in_trash() == unknown


def test_a_small_share_goes_and_so_does_what_is_little(kept: Kept) -> None:
    kept.blobs(*range(20))
    assert kept.sweep().files == 20
    kept.refer_to(kept.blobs(*range(1_000, 1_300)))
    kept.blobs(*range(25))
    assert kept.sweep().files == 25


def test_a_few_large_files_are_a_large_share_too(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "ALWAYS_ALLOWED", Amount(20, 1_000))
    kept.blobs("x" * 1_001)
    assert kept.sweep().report.startswith("1 of 1 files (1 KB) is unknown")


@pytest.mark.parametrize(("hours", "files"), [(30, 25), (50, 0)])
def test_what_was_there_at_the_adoption_goes_when_it_is_a_day_old(
    kept: Kept, hours: int, files: int
) -> None:
    kept.blobs(*range(25))
    sweep(kept.database, kept.store, adopt=True)  # all too young
    assert len(kept.left()) == 25
    swept = kept.sweep(after=timedelta(hours=hours))
    assert len(kept.in_trash()) == files
    assert bool(swept.report) == (files == 0)


def test_files_that_rows_once_named_are_no_sign_of_a_wrong_database(kept: Kept) -> None:
    ended = utcnow() - JOB_FILES_KEPT
    uploads = kept.blobs(*range(25))
    kept.refer_to(uploads, status=JobStatus.FAILED, finished_at=ended)
    (gone, *small) = kept.blobs(*(f"thumbnail {n}" for n in range(31)))
    with kept.database.write() as session:
        for number in range(30):
            session.add(Thumbnail(sha256=f"{number:064x}", small_sha256=small[number]))
    kept.store.delete(gone)
    assert kept.sweep().files == 55


def test_files_that_name_no_database_belong_to_the_one_that_knows_them(
    database: Database, tmp_path: Path
) -> None:
    """The data folder of a version that had no marker yet."""
    old = Kept(database, open_store(None, tmp_path))
    old.refer_to(old.blobs(*range(30)))
    assert old.sweep(dry_run=True).report == ""
    assert old.owner() is Owner.NOBODY
    assert old.sweep().report == ""
    assert old.owner() is Owner.THIS


def test_files_that_name_no_database_and_are_unknown_belong_to_nobody(
    database: Database, tmp_path: Path
) -> None:
    old = Kept(database, open_store(None, tmp_path))
    old.refer_to(set())
    old.blobs(*range(30))
    swept = old.sweep(after=timedelta())  # however young they are
    assert swept.report == (
        "The files do not say which database they belong to. 30 of 30 files (50 B) are unknown to "
        "this database."
    )
    assert old.owner() is Owner.NOBODY
    old.sweep(adopt=True)
    assert old.owner() is Owner.THIS


def test_what_is_older_than_the_database_goes_only_when_it_is_adopted(other: Kept) -> None:
    other.blobs("of the lost one")
    with other.database.write() as session:
        session.exec(delete(Event))
        session.add(Event(at=utcnow() + timedelta(hours=1), subject="x", subject_id=1, kind="x"))
    ownership.adopt(other.database, other.store)
    assert other.sweep().files == 0
    assert other.sweep(adopt=True).files == 1


def test_what_is_in_the_trash_goes_for_good_after_two_weeks(kept: Kept) -> None:
    kept.blobs("lost")
    assert kept.sweep().trash == Amount(1, 4)
    for days in (1, 13.9):
        assert kept.sweep(after=timedelta(days=days)).emptied.files == 0
    swept = kept.sweep(after=timedelta(days=14, minutes=1))
    assert (swept.emptied, swept.trash) == (Amount(1, 4), Amount())
    assert kept.in_trash() == set()


def test_a_database_that_only_reports_leaves_the_trash_alone(kept: Kept, other: Kept) -> None:
    kept.blobs("lost")
    kept.sweep()
    assert other.sweep(after=timedelta(days=20)).report
    assert len(kept.in_trash()) == 1


def test_the_copy_in_the_trash_of_what_was_stored_again_goes(kept: Kept) -> None:
    files = kept.blobs("stored again")
    kept.sweep()
    kept.refer_to(kept.blobs("stored again"))
    assert kept.sweep().emptied == Amount(1, 12)
    assert (kept.left(), kept.in_trash()) == (files, set())


def test_what_is_stored_again_and_given_up_again_starts_anew_in_the_trash(kept: Kept) -> None:
    files = kept.blobs("lost")
    kept.sweep()
    kept.blobs("lost")
    assert (kept.sweep().files, kept.in_trash()) == (1, files)


def test_emptying_the_trash_frees_it_and_keeps_what_rows_refer_to(kept: Kept) -> None:
    needed = kept.blobs("needed after all")
    kept.blobs("lost")
    kept.sweep()
    kept.refer_to(needed)
    swept = empty_trash(kept.database, kept.store, dry_run=True)
    assert (swept.emptied, swept.brought_back, swept.trash.files) == (Amount(1, 4), 1, 2)
    swept = empty_trash(kept.database, kept.store)
    assert (swept.emptied, swept.brought_back, swept.trash.files) == (Amount(1, 4), 1, 0)
    assert (kept.left(), kept.in_trash()) == (needed, set())


def test_only_the_owner_empties_the_trash(kept: Kept, other: Kept) -> None:
    kept.blobs("lost")
    kept.sweep()
    swept = empty_trash(other.database, other.store)
    assert "belong to another database" in swept.report
    assert swept.trash.files == 1


def test_a_dry_run_writes_nothing(kept: Kept, other: Kept) -> None:
    before = kept.store.read_marker()
    kept.blobs("lost")
    other.sweep(dry_run=True)
    kept.sweep(dry_run=True, adopt=True)
    empty_trash(other.database, other.store, dry_run=True)
    assert kept.store.read_marker() == before
    assert len(kept.left()) == 1
