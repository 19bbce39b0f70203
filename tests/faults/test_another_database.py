"""The store's own database and copies of it, on PostgreSQL and S3 as they really are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from app.registry import migrate
from app.registry.blobs import ownership, trash
from app.registry.blobs.ownership import Owner
from app.registry.blobs.sweep import sweep
from app.registry.config import Settings
from app.registry.db import Database, make_engine, utcnow
from app.registry.storage import bucket
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.tables.jobs import Event, IoJob
from tests.conftest import POSTGRES, empty_database
from tests.faults import s3_server

TOMORROW = timedelta(hours=25)


@pytest.fixture
def store(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectBlobStore:
    """A folder of its own in the bucket of a real S3 server."""
    for name, value in s3_server.environment(s3_port).items():
        monkeypatch.setenv(name, value)
    return ObjectBlobStore(f"s3://{s3_server.BUCKET}/{tmp_path.name}", scratch=tmp_path)


@pytest.fixture
def url() -> Iterator[str]:
    """A migrated PostgreSQL database with an event of a month ago."""
    with empty_database("brushwork_faults") as url:
        database = open_database(url)
        migrate.upgrade(database.engine)
        happen(database, days_ago=30)
        database.dispose()
        yield url


def open_database(url: str) -> Database:
    """The database at this address."""
    return Database(make_engine(Settings(database_url=url).sqlalchemy_url))


def happen(database: Database, *files: str, days_ago: float = 0.1) -> None:
    """Store an event, and a row that refers to these files."""
    with database.write() as session:
        at = utcnow() - timedelta(days=days_ago)
        session.add(Event(at=at, subject="x", subject_id=1, kind="queued"))
        session.add(IoJob(kind="x", args={"files": list(files)}))


def copy_database(url: str) -> str:
    """The URL of a copy of a PostgreSQL database that nobody uses: a dump that was restored."""
    name = urlsplit(url).path[1:]
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")  # type: ignore[arg-type]
    return f"{url}_copy"


@pytest.fixture
def copies(url: str, store: ObjectBlobStore) -> Iterator[tuple[Database, Database]]:
    """The database that owns the store and a copy of it of an earlier hour."""
    owner = open_database(url)
    ownership.record(owner, store)
    happen(owner, store.put_bytes(b"of both").sha256)
    owner.dispose()
    copied = copy_database(url)
    copy = open_database(copied)
    yield owner, copy
    owner.dispose()
    copy.dispose()
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        name = urlsplit(copied).path[1:]
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def stored(store: ObjectBlobStore) -> set[bytes]:
    """The content of all blobs."""
    contents = set()
    for blob in list(store.list()):
        with store.open(blob.sha256) as opened:
            contents.add(opened.read())
    return contents


def test_a_restored_dump_beside_the_bucket_takes_nothing_until_it_is_adopted(
    store: ObjectBlobStore, copies: tuple[Database, Database]
) -> None:
    owner, earlier = copies
    happen(owner, store.put_bytes(b"of the lost hour").sha256)
    assert sweep(owner, store, now=utcnow() + TOMORROW).files == 0

    swept = sweep(earlier, store, now=utcnow() + TOMORROW)
    assert swept.report.startswith("This database is older than the files: ")
    assert stored(store) == {b"of both", b"of the lost hour"}
    assert sweep(earlier, store, now=utcnow() + TOMORROW, adopt=True).files == 1
    assert stored(store) == {b"of both"}

    assert trash.restore(store).files == 1
    assert stored(store) == {b"of both", b"of the lost hour"}


def test_of_a_database_and_its_staging_copy_both_only_report(
    store: ObjectBlobStore, copies: tuple[Database, Database]
) -> None:
    production, staging = copies
    happen(production)
    ownership.record(production, store)
    happen(staging, store.put_bytes(b"of staging").sha256)
    happen(production)
    assert ownership.record(staging, store).owner is Owner.FORKED
    assert ownership.record(production, store).owner is Owner.SHARED
    for database in (production, staging):
        assert sweep(database, store, now=utcnow() + TOMORROW).report
    assert stored(store) == {b"of both", b"of staging"}


def test_what_is_too_large_for_one_copy_goes_to_the_trash_and_back_in_parts(
    store: ObjectBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "COPY_LIMIT", 1)
    content = os.urandom(bucket.COPY_CHUNK + 1_000)
    sha256 = store.put_bytes(content).sha256
    assert store.discard(sha256, before=datetime.now(UTC) + timedelta(minutes=1))
    assert [blob.size for blob in store.list_trash()] == [len(content)]
    assert list(store.list()) == []
    with store.open(sha256) as opened:  # which brings it back
        assert opened.read() == content
    assert list(store.list_trash()) == []
