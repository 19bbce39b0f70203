"""A file that is stored again or referred to while it is deleted for good is never lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import Session, select

from app.registry.blobs import deletion as freeing
from app.registry.blobs import guard, ownership
from app.registry.blobs.guard import JustDeleted
from app.registry.blobs.ownership import read_marker, write_marker
from app.registry.datasets import service as datasets
from app.registry.db import Database
from app.registry.deletion import renders as deletion
from app.registry.renders import service
from app.registry.renders.requests import RenderRequest
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Image
from app.registry.tables.renders import RenderImage
from tests import fake_workers
from tests.app.deletion.conftest import Registry


@pytest.fixture
def shown(registry: Registry) -> str:
    """The image of render 1."""
    with registry.database.write() as session:
        service.create_render(session, RenderRequest(prompt="x"), registry.state.store)
    fake_workers.draw(registry.state)
    with registry.database.read() as session:
        return session.exec(select(RenderImage)).one().sha256


def add_reference(session: Session, sha256: str) -> None:
    session.add(Adapter(slug="x", name="x", base_family="sd1", cover_sha256=sha256))


def delete(registry: Registry) -> freeing.FreedSpace:
    return freeing.delete(registry.state, lambda session: deletion.delete_render(session, 1))


def between_commit_and_files(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, act: Callable[[], None]
) -> None:
    """Call this once the rows are deleted and before the files are."""
    real = freeing._delete_files

    def wait(*args: object) -> set[str]:
        act()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(freeing, "_delete_files", wait)


def test_a_file_that_is_referred_to_after_the_commit_is_kept(
    registry: Registry, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refer() -> None:
        with registry.database.write() as session:
            add_reference(session, shown)

    between_commit_and_files(monkeypatch, registry, refer)
    assert delete(registry).files == 0
    assert registry.state.store.exists(shown)


def test_a_row_for_a_file_that_was_just_deleted_is_refused(registry: Registry, shown: str) -> None:
    delete(registry)
    with (
        pytest.raises(JustDeleted, match="Send it again"),
        registry.database.write() as session,
    ):
        add_reference(session, shown)
    dataset = fake_workers.dataset(registry.state, pictures=0)
    with pytest.raises(JustDeleted), registry.database.write() as session:
        session.add(
            Image(
                dataset_id=dataset.key,
                sha256="1" * 64,
                clean_sha256=shown,
                thumbnail_sha256="2" * 64,
                filename="x",
                width=1,
                height=1,
                size_bytes=1,
            )
        )
    registry.state.store.put_bytes(b"anything")
    with registry.database.write() as session:
        assert datasets.list_images(session, dataset.key) == []


def test_the_same_bytes_can_be_stored_again_later(registry: Registry, shown: str) -> None:
    with registry.state.store.open(shown) as file:
        content = file.read()
    delete(registry)
    registry.state.store.put_bytes(content)
    with registry.database.write() as session:
        add_reference(session, shown)


def test_files_are_deleted_only_when_no_reference_is_being_written(
    registry: Registry, shown: str
) -> None:
    """A writer that began before is waited for, and its row keeps the file."""
    written, may_end = threading.Event(), threading.Event()

    def refer() -> None:
        with registry.database.write() as session:
            add_reference(session, shown)
            session.flush()
            written.set()
            may_end.wait(10)

    with ThreadPoolExecutor(2) as threads:
        writer = threads.submit(refer)
        assert written.wait(10)
        deleter = threads.submit(delete, registry)
        may_end.set()
        writer.result()
        deleter.result()
    assert registry.state.store.exists(shown)


def test_the_store_is_asked_for_sizes_while_others_may_write(
    registry: Registry, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that loses its last reference meanwhile is checked as well, and deleted."""
    with registry.database.write() as session:
        add_reference(session, shown)
    real = freeing.sizes_of
    asked: list[set[str]] = []

    def sizes(store: BlobStore, hashes: set[str]) -> dict[str, int]:
        if not asked:
            with registry.database.write() as session:  # would wait for the deletion for ever
                session.delete(session.exec(select(Adapter)).one())
        asked.append(hashes)
        return real(store, hashes)

    monkeypatch.setattr(freeing, "sizes_of", sizes)
    freed = delete(registry)
    assert shown not in asked[0]
    assert asked[1] == {shown}
    assert not registry.state.store.exists(shown)
    assert freed.files == len(asked[0]) + 1


def test_uploads_and_deletions_of_the_same_image_never_lose_it(registry: Registry) -> None:
    """Whoever loses the race is told; a row never refers to a missing file."""
    content = b"the same image"

    def upload(number: int) -> None:
        sha256 = registry.state.store.put_bytes(content).sha256
        try:
            with registry.database.write() as session:
                session.add(
                    Adapter(slug=f"a-{number}", name="x", base_family="sd1", cover_sha256=sha256)
                )
        except JustDeleted:
            return

    def remove(number: int) -> None:
        def covers(session: Session) -> freeing.Deletion:
            found = freeing.Deletion("covers")
            for row in session.exec(select(Adapter).with_for_update()):
                found.files |= {str(row.cover_sha256)}
                session.delete(row)
            session.flush()
            return found

        freeing.delete(registry.state, covers)

    for _ in range(2):
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda n: (upload if n % 2 else remove)(n), range(12)))
        with registry.database.write() as session:
            rows = session.exec(select(Adapter)).all()
            assert all(registry.state.store.exists(str(row.cover_sha256)) for row in rows)
            for row in rows:
                session.delete(row)


def test_only_rows_with_files_are_looked_at(registry: Registry) -> None:
    asked = []
    store = registry.state.store

    class Counting:
        def exists(self, sha256: str) -> bool:
            asked.append(sha256)
            return store.exists(sha256)

    check = guard.make_guard(Counting())  # type: ignore[arg-type]
    with registry.database.write() as session:
        add_reference(session, "1" * 64)
        check(session)
        session.rollback()
    assert asked == []  # it was not deleted


def test_files_that_another_database_may_need_stay(registry: Registry, shown: str) -> None:
    store = registry.state.store
    ownership.claim(registry.database, store)
    marker = read_marker(store)
    assert marker is not None
    write_marker(store, marker.model_copy(update={"registry": "f" * 32}))
    freed = registry.delete(lambda session: deletion.delete_render(session, 1))
    assert freed.files == 0
    assert freed.stays[-1].startswith("The files stay: another database may need them. ")
    assert store.exists(shown)


def test_files_go_even_if_the_log_cannot_be_emptied(
    registry: Registry, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []

    def fail(database: Database) -> None:
        left.append(registry.state.store.exists(shown))
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Database, "_empty_log", fail)
    assert delete(registry).files == 1
    assert not registry.state.store.exists(shown)
    assert left == ([False] if registry.database.is_sqlite else [])
