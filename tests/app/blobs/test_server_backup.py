"""PostgreSQL with a bucket: a dump first, then the bucket, while Brushwork is in use."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import func, select

from app.registry.blobs.check import StoreCheck
from app.registry.db import Database, make_engine
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.tables.blobs import FileProblem
from app.registry.tables.renders import RenderImage
from tests.app.blobs.conftest import Filled, fill
from tests.conftest import empty_tables

PATIENCE_SECONDS = 60.0


@pytest.fixture
def used(migrated_postgres: sa.Engine, tmp_path: Path) -> Filled:
    """A filled registry on PostgreSQL with a bucket."""
    with migrated_postgres.begin() as connection:
        empty_tables(connection)
    return fill(Filled(Database(migrated_postgres), ObjectBlobStore("memory://", scratch=tmp_path)))


@contextmanager
def in_use(used: Filled) -> Iterator[Callable[[], None]]:
    """Generate images without end meanwhile; gives a function that waits for some more."""
    ended = threading.Event()

    def generate() -> None:
        number = 0
        while not ended.wait(0.005):
            number += 1
            sha256 = used.put(f"image {number}")
            with used.database.write() as session:
                session.add(RenderImage(render_id=1, index=number, seed=1, sha256=sha256))

    def wait_for_more() -> None:
        wanted, deadline = count_images(used.database) + 5, time.monotonic() + PATIENCE_SECONDS
        while count_images(used.database) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        yield wait_for_more
    finally:
        ended.set()
        thread.join()


def count_images(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(RenderImage)).one()


def plain_url(url: sa.URL) -> str:
    """The address as the programs of PostgreSQL read it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def dump(used: Filled, file: Path) -> None:
    source = plain_url(used.database.engine.url)
    subprocess.run(["pg_dump", "--format=custom", f"--file={file}", source], check=True)


def copy_bucket(used: Filled, scratch: Path) -> ObjectBlobStore:
    copy = ObjectBlobStore("memory://", scratch=scratch)
    for blob in list(used.store.list()):
        with used.store.open_unchecked(blob.sha256) as content:
            copy.put_bytes(content.read())
    return copy


@contextmanager
def restored(file: Path, near: sa.URL) -> Iterator[Database]:
    """The dump in a database of its own."""
    name = f"brushwork_restored_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(near, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = near.set(database=name)
    subprocess.run(
        ["pg_restore", "--no-owner", f"--dbname={plain_url(url)}", str(file)], check=True
    )
    database = Database(make_engine(url.render_as_string(hide_password=False)))
    yield database
    database.dispose()
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


def test_a_dump_and_then_the_bucket_have_every_file(used: Filled, tmp_path: Path) -> None:
    with in_use(used) as wait_for_more:
        wait_for_more()
        dump(used, tmp_path / "dump")
        wait_for_more()
        copy = copy_bucket(used, tmp_path)
        wait_for_more()
    with restored(tmp_path / "dump", used.database.engine.url) as database:
        assert 5 < count_images(database) < count_images(used.database) - 5
        check = StoreCheck(database, copy)
        assert check.read(list(check.find_missing())) == 0
        assert check.problems == {}


def test_the_other_order_misses_files(used: Filled, tmp_path: Path) -> None:
    with in_use(used) as wait_for_more:
        copy = copy_bucket(used, tmp_path)
        wait_for_more()
        dump(used, tmp_path / "dump")
    with restored(tmp_path / "dump", used.database.engine.url) as database:
        check = StoreCheck(database, copy)
        check.find_missing()
        assert len(check.problems) >= 5
        assert set(check.problems.values()) == {FileProblem.MISSING}
