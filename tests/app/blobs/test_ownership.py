"""A store knows its database: on both databases, in a folder and in a bucket."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import col, delete, select

from app.registry.blobs import ownership as service
from app.registry.blobs.ownership import Marker, Owner, OwnerCheck, read_marker
from app.registry.db import Database, utcnow
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.tables.blobs import Registry
from app.registry.tables.jobs import Event


@dataclass(frozen=True)
class Owned:
    """A database and the store it records itself in."""

    database: Database
    store: BlobStore

    def record(self, *, now: datetime | None = None) -> OwnerCheck:
        return service.record(self.database, self.store, now=now)

    def owner(self, *, now: datetime | None = None) -> Owner:
        return service.check(self.database, self.store, now=now).owner

    def marker(self) -> Marker:
        found = read_marker(self.store)
        assert found is not None
        return found

    def add_event(self, *, minutes_ago: float = 60) -> int:
        """The number of a new event."""
        with self.database.write() as session:
            event = Event(
                at=utcnow() - timedelta(minutes=minutes_ago),
                subject="x",
                subject_id=1,
                kind="queued",
            )
            session.add(event)
            session.flush()
            return event.id or 0

    def go_back_to(self, number: int) -> None:
        """Become the database of an earlier hour, as a restored one is."""
        with self.database.write() as session:
            session.exec(delete(Event).where(col(Event.id) > number))


@pytest.fixture
def owned(database: Database, tmp_path: Path) -> Owned:
    """A registry with one event, and an empty store that belongs to it.

    SQLite with a folder, PostgreSQL with a bucket.
    """
    url = None if database.is_sqlite else "memory://"
    owned = Owned(database, open_store(url, tmp_path / "data"))
    owned.add_event()
    owned.record()
    return owned


@pytest.fixture
def other(owned: Owned, other_database: Database) -> Owned:
    """Another registry on the same store."""
    return replace(owned, database=other_database)


def test_an_empty_store_belongs_to_the_first_database_that_records_itself(owned: Owned) -> None:
    found = service.check(owned.database, owned.store)
    assert (found.owner, found.sentence) == (Owner.THIS, "")
    assert owned.marker().registry == service.registry_uid(owned.database)
    assert owned.marker().newest.number == 1


def test_files_of_nobody_belong_to_nobody_until_they_are_claimed(owned: Owned) -> None:
    blank = replace(owned, store=open_store("memory://", Path()))
    blank.store.put_bytes(b"x")
    assert blank.record().owner is Owner.NOBODY
    assert blank.store.read_marker() is None
    service.claim(blank.database, blank.store)
    assert blank.owner() is Owner.THIS
    assert blank.marker().adopted_at is None


def test_starts_at_the_same_time_agree_on_one_id(database: Database) -> None:
    barrier = threading.Barrier(4)

    def start(_: int) -> str:
        barrier.wait()
        return service.registry_uid(database)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1
    with database.read() as session:
        (row,) = session.exec(select(Registry))
    assert len(row.uid) == 32


def test_the_marker_goes_with_the_events_and_never_back(owned: Owned) -> None:
    newest = owned.add_event()
    assert owned.record().owner is Owner.THIS
    assert owned.marker().newest.number == newest
    owned.go_back_to(newest - 1)
    assert owned.record().owner is Owner.NEWER
    assert owned.marker().newest.number == newest


def test_events_of_the_last_moments_are_not_recorded_yet(owned: Owned) -> None:
    """A power failure may take the last commits of SQLite; that makes nothing older."""
    before = owned.marker().newest.number
    owned.add_event(minutes_ago=0)
    owned.record()
    assert owned.marker().newest.number == before
    owned.go_back_to(before)
    assert owned.owner() is Owner.THIS
    latest = owned.add_event(minutes_ago=0)
    owned.record(now=utcnow() + timedelta(minutes=3))
    assert owned.marker().newest.number == latest


def test_nothing_is_written_while_nothing_happens(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(type(owned.store), "write_marker", refuse)
    assert owned.record().owner is Owner.THIS


def test_a_database_of_an_earlier_hour_is_seen(owned: Owned) -> None:
    owned.add_event()
    owned.add_event()
    owned.record()
    owned.go_back_to(1)
    found = service.check(owned.database, owned.store)
    assert found.owner is Owner.NEWER
    assert found.sentence.startswith("This database is older than the files: they were last used")
    assert "event 3 (" in found.sentence
    assert "newest is event 1 (" in found.sentence


@pytest.mark.parametrize("more", [1, 3])
def test_one_that_went_on_since_with_the_same_numbers_is_seen_too(owned: Owned, more: int) -> None:
    newest = owned.add_event()
    owned.record()
    owned.go_back_to(1)
    for _ in range(more):
        owned.add_event(minutes_ago=5)
    with owned.database.write() as session:  # SQLite gives the numbers again, PostgreSQL does not
        for number, event in enumerate(session.exec(select(Event).order_by(col(Event.id)))):
            event.id = number + 1
    assert owned.owner() is Owner.FORKED
    assert owned.record().owner is Owner.FORKED
    assert owned.marker().newest.number == newest


def test_a_gap_where_the_newest_event_was_is_seen(owned: Owned) -> None:
    gone = owned.add_event()
    owned.record()
    owned.go_back_to(gone - 1)
    with owned.database.write() as session:
        session.add(Event(id=gone + 32, subject="x", subject_id=1, kind="queued"))
    assert owned.owner() is Owner.FORKED


def test_what_an_event_says_may_be_removed(owned: Owned) -> None:
    with owned.database.write() as session:
        for event in session.exec(select(Event)):
            event.data = {"prompt": "removed"}
    assert owned.owner() is Owner.THIS


def test_another_database_is_seen_by_both(owned: Owned, other: Owned) -> None:
    found = other.record()
    assert found.owner is Owner.OTHER
    assert "belong to another database" in found.sentence
    assert "this one is new" in found.sentence
    assert owned.marker().registry == service.registry_uid(owned.database)
    here = service.check(owned.database, owned.store)
    assert here.owner is Owner.SHARED
    assert here.sentence.startswith("Two databases use these files: this one, and registry ")
    later = utcnow() + service.OTHERS_SEEN + timedelta(minutes=1)
    assert owned.owner(now=later) is Owner.THIS


def test_a_database_that_shares_its_files_still_records_itself(owned: Owned, other: Owned) -> None:
    other.record()
    newest = owned.add_event()
    assert owned.record().owner is Owner.SHARED
    assert owned.marker().newest.number == newest
    assert len(owned.marker().others) == 1


def test_another_database_is_written_down_once_an_hour(owned: Owned, other: Owned) -> None:
    now = utcnow()
    for minutes in (0, 1, 59, 61):
        other.record(now=now + timedelta(minutes=minutes))
        (seen,) = owned.marker().others
        assert seen.seen_at == now + timedelta(minutes=61 if minutes == 61 else 0)


def test_adopting_makes_the_files_those_of_this_database(owned: Owned, other: Owned) -> None:
    other.record()
    service.adopt(other.database, other.store)
    assert other.owner() is Owner.THIS
    assert owned.owner() is Owner.OTHER
    assert other.marker().adopted_at is not None
    service.adopt(owned.database, owned.store)
    assert (owned.owner(), other.owner()) == (Owner.THIS, Owner.OTHER)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"registry": 1}', b"[" * 9_999])
def test_a_damaged_marker_is_told_and_replaced_only_by_adopting(
    owned: Owned, content: bytes
) -> None:
    owned.store.write_marker(content)
    found = owned.record()
    assert (found.owner, found.marker) == (Owner.UNKNOWN, None)
    assert "registry.json beside the files is damaged" in found.sentence
    assert owned.store.read_marker() == content
    service.adopt(owned.database, owned.store)
    assert owned.owner() is Owner.THIS


def test_a_marker_of_a_later_version_is_read(owned: Owned) -> None:
    data = owned.store.read_marker() or b""
    owned.store.write_marker(data.replace(b'"registry"', b'"new_field": [1], "registry"', 1))
    assert owned.owner() is Owner.THIS


def test_a_copy_of_the_folder_serves_as_the_bucket(owned: Owned, tmp_path: Path) -> None:
    """Blobs, trash and marker have the same names in both."""
    folder, bucket = open_store(None, tmp_path / "moved"), open_store("memory://", tmp_path)
    lost = folder.put_bytes(b"lost").sha256
    folder.discard(lost, before=utcnow() + timedelta(minutes=1))
    folder.put_bytes(b"kept")
    service.claim(owned.database, folder)
    copy_into: Callable[[str, bytes], object] = bucket._bucket.put  # type: ignore[attr-defined]
    for path in (tmp_path / "moved" / "blobs").rglob("*"):
        if path.is_file():
            copy_into(str(path.relative_to(tmp_path / "moved")), path.read_bytes())
    assert service.check(owned.database, bucket).owner is Owner.THIS
    assert [blob.sha256 for blob in bucket.list_trash()] == [lost]
    assert len(list(bucket.list())) == 1
