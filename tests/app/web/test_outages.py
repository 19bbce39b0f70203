"""A database that is locked, full or away, and a full disk: 503 or 507, on pages and in the API."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.datasets import service
from app.registry.db import Database, Session, make_engine
from app.registry.outages import DatabaseUnavailable
from app.registry.state import AppState
from app.registry.storage.store import BlobStore, StorageUnavailable
from app.registry.tables.datasets import Dataset
from app.web import error_answers
from tests import fake_workers
from tests.app.test_postgres import wait_until_ended

PAGE = {"accept": "text/html"}


def with_database(app: FastAPI, state: AppState, url: str) -> Database:
    """Let the app use another database, for which it waits one second."""
    database = Database(make_engine(url, patience=1))
    app.state.brushwork = dataclasses.replace(state, database=database)
    return database


@pytest.fixture
def impatient(app: FastAPI, state: AppState) -> Iterator[Database]:
    """The database of the app, for whose locks a request waits one second."""
    database = with_database(app, state, str(state.database.engine.url))
    yield database
    database.dispose()


@contextlib.contextmanager
def write_lock(state: AppState) -> Iterator[None]:
    """Another program holds SQLite's write lock."""
    other = sqlite3.connect(state.settings.data_dir / "brushwork.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        yield


def fill(database: Database) -> None:
    """Let SQLite answer that the disk is full at the next page it needs."""
    database.engine.dispose()

    def no_more_pages(connection: sqlite3.Connection, _record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(database.engine, "connect", no_more_pages)


def test_a_locked_database_is_busy_and_can_still_be_read(
    client: TestClient, state: AppState, impatient: Database
) -> None:
    with write_lock(state):
        answer = client.post("/api/v1/datasets", json={"name": "Ink"})
        page = client.post("/datasets", data={"name": "Ink"}, headers=PAGE)
        assert client.get("/datasets", headers=PAGE).status_code == 200
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["type"] == "urn:brushwork:problem:database_busy"
    assert (page.status_code, page.headers["retry-after"]) == (503, "2")
    assert "nothing was changed" in page.text
    assert client.post("/api/v1/datasets", json={"name": "Ink"}).status_code == 201


def test_a_full_database_is_507(client: TestClient, impatient: Database) -> None:
    fill(impatient)
    notes = {"name": "Ink" * 30, "trigger_word": "ink" * 10}
    answers = [client.post("/api/v1/datasets", json=notes) for _ in range(200)]
    full = next(answer for answer in answers if answer.status_code != 201)
    assert full.status_code == 507
    assert full.json()["type"] == "urn:brushwork:problem:storage_full"
    assert "Free some space" in client.post("/datasets", data=notes, headers=PAGE).text


def test_keeping_a_checkpoint_on_a_full_disk_says_so_and_loses_nothing(
    client: TestClient, state: AppState, impatient: Database
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.checkpoint()
    fill(impatient)
    notes = {"name": "Ink" * 30, "trigger_word": "ink" * 10}
    while client.post("/api/v1/datasets", json=notes).status_code == 201:
        pass  # until no page is left
    address = "/api/v1/runs/1/checkpoints/10/keep"
    kept = [client.request(method, address) for method in ("PUT", "DELETE") * 60]  # an event each
    full = next(answer for answer in kept if answer.status_code != 200)
    assert full.json()["type"] == "urn:brushwork:problem:storage_full"
    assert "Free some space" in client.post("/runs/1/checkpoints/10/keep", headers=PAGE).text
    (row,) = client.get("/api/v1/runs/1/checkpoints").json()
    assert (row["step"], row["adapter_id"]) == (10, 1)


def test_a_postgresql_that_is_away_is_unavailable(
    client: TestClient, app: FastAPI, state: AppState
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://nobody@127.0.0.1:{unused.getsockname()[1]}/nothing"
        database = with_database(app, state, url)
        api = client.get("/api/v1/datasets")
        media = client.get(f"/media/{'0' * 64}/small")
        page = client.get("/", headers=PAGE)
    database.dispose()
    for answer in (api, media, page):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert api.json()["type"] == "urn:brushwork:problem:database_unavailable"
    assert "brushwork doctor" in page.text


def test_a_row_that_postgresql_has_locked_is_busy(
    client: TestClient, app: FastAPI, state: AppState, migrated_postgres: sa.Engine
) -> None:
    url = migrated_postgres.url.render_as_string(hide_password=False)
    database = with_database(app, state, url)
    with migrated_postgres.connect() as other:
        other.exec_driver_sql("LOCK TABLE dataset")
        answer = client.post("/api/v1/datasets", json={"name": "Ink"})
        other.rollback()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["type"] == "urn:brushwork:problem:database_busy"
    database.dispose()


def test_a_request_that_idles_in_a_transaction_is_busy_and_works_again(
    client: TestClient,
    app: FastAPI,
    state: AppState,
    migrated_postgres: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = migrated_postgres.url.render_as_string(hide_password=False)
    database = with_database(app, state, url)
    create = service.create_dataset

    def idle_first(session: Session, *values: Any, **options: Any) -> Dataset:
        wait_until_ended(migrated_postgres, session)
        return create(session, *values, **options)

    with monkeypatch.context() as patch:
        patch.setattr(service, "create_dataset", idle_first)
        answer = client.post("/api/v1/datasets", json={"name": "Idle"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["type"] == "urn:brushwork:problem:database_busy"
    assert client.post("/api/v1/datasets", json={"name": "Idle"}).status_code == 201
    database.dispose()


@pytest.mark.parametrize("address", ["/system", "/storage"])
def test_pages_about_the_storage_say_that_it_does_not_answer(
    address: str, client: TestClient, app: FastAPI, state: AppState
) -> None:
    reason = "The object store reported an error: connection refused"
    store: BlobStore = AwayStore()  # type: ignore[assignment]
    app.state.brushwork = dataclasses.replace(state, store=store)
    page = client.get(address, headers=PAGE)
    assert page.status_code == 200
    assert reason in page.text
    assert "0 B" not in page.text


@pytest.mark.parametrize("address", ["/system", "/storage"])
def test_a_storage_folder_that_is_away_is_not_shown_as_empty(
    address: str, client: TestClient, state: AppState
) -> None:
    folder = state.settings.data_dir / "blobs"
    folder.rename(folder.with_name("away"))
    page = client.get(address, headers=PAGE)
    assert page.status_code == 200
    assert f"The storage folder {folder} cannot be read" in page.text
    assert "0 B" not in page.text


class AwayStore:
    """A bucket that does not answer."""

    def __getattr__(self, name: str) -> object:
        raise StorageUnavailable("The object store reported an error: connection refused")


def test_no_free_connection_is_busy(client: TestClient, impatient: Database) -> None:
    pool = impatient.engine.pool
    taken = [pool.connect() for _ in range(40)]
    assert client.get("/api/v1/datasets").json()["type"] == "urn:brushwork:problem:database_busy"
    for connection in taken:
        connection.close()


def test_a_full_temporary_folder_is_507(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", full)
    files = {"files": ("a.png", b"x")}
    answer = client.post("/datasets", data={"name": "Ink"}, files=files, headers=PAGE)
    assert answer.status_code == 507


def test_a_mistake_in_a_query_is_no_outage(client: TestClient, impatient: Database) -> None:
    with impatient.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE dataset RENAME TO gone")
    assert client.get("/api/v1/datasets").status_code == 500


def test_an_outage_in_a_middleware_is_answered_like_one_in_a_route() -> None:
    async def gate(scope: object, receive: object, send: object) -> None:
        raise DatabaseUnavailable("The database cannot be used.")

    answer = TestClient(error_answers.ErrorAnswers(gate)).get("/api/v1/runs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
