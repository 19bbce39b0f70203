"""`Idempotency-Key`: what was sent again is not done again, on both databases."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlmodel import select
from starlette.types import Message, Receive, Scope, Send

from app.registry.access import idempotency
from app.registry.db import Database, database_now, make_engine
from app.registry.state import AppState
from app.registry.tables.people import KeyedRequest
from app.web.idempotency import HEADER, REPLAYED, SCHEMA, IdempotencyKeys
from app.web.openapi import operations
from tests.conftest import AppMaker, make_base_ready

KEY = {HEADER: "8e03978e-40d5-43dd-bc93-6894a57f9324"}
DATASETS = "/api/v1/datasets"
TOGETHER = 8
Png = Callable[..., bytes]


@pytest.fixture(autouse=True)
def on_database(app: FastAPI, state: AppState, database: Database) -> Iterator[None]:
    """The app of the tests on each of the databases."""
    make_base_ready(database)
    app.state.brushwork = dataclasses.replace(state, database=database)
    yield
    app.state.brushwork = state


@pytest.fixture
def other_process(make_app: AppMaker, state: AppState, database: Database) -> Iterator[TestClient]:
    """Another server on the same database, with connections of its own."""
    other = make_app(state.settings)
    own = other.state.brushwork
    url = database.engine.url.render_as_string(hide_password=False)
    other.state.brushwork = dataclasses.replace(own, database=Database(make_engine(url)))
    yield TestClient(other, base_url="http://localhost")
    other.state.brushwork.close()
    own.close()


def create(client: TestClient, name: str = "Ink", headers: dict[str, str] = KEY) -> Response:
    return client.post(DATASETS, json={"name": name}, headers=headers)


def names(client: TestClient) -> list[str]:
    return [row["name"] for row in client.get(DATASETS).json()]


def rows(database: Database) -> list[KeyedRequest]:
    with database.read() as session:
        return list(session.exec(select(KeyedRequest)))


def let_expire(database: Database) -> None:
    """Put the end of every key into the past."""
    with database.write() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.connection().execute(sa.update(KeyedRequest).values(expires_at=past))


def test_the_same_request_gets_the_first_answer_and_does_nothing(client: TestClient) -> None:
    first, second = create(client), create(client)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second.headers["location"] == first.headers["location"] == f"{DATASETS}/1"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert (first.headers.get(REPLAYED), second.headers[REPLAYED]) == (None, "true")
    assert names(client) == ["Ink"]
    create(client, headers={HEADER: "another"})
    create(client, headers={})
    assert len(names(client)) == 3


def test_a_job_is_queued_once(client: TestClient) -> None:
    body = {"prompt": "a fox", "seed": 1}
    answers = [client.post("/api/v1/renders", json=body, headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()


def test_a_key_with_another_body_or_address_is_refused(client: TestClient) -> None:
    create(client)
    for other in (
        create(client, "Chalk"),
        client.post(f"{DATASETS}?again=1", json={"name": "Ink"}, headers=KEY),
        client.post("/api/v1/renders", json={"name": "Ink"}, headers=KEY),
    ):
        assert other.status_code == 422
        assert "Send a new key" in other.json()["errors"][0]["detail"]
    assert names(client) == ["Ink"]


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "ä"])
def test_a_key_that_cannot_be_kept_is_refused(client: TestClient, key: str) -> None:
    answer = client.post(DATASETS, json={"name": "Ink"}, headers={HEADER: key.encode()})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == HEADER
    assert names(client) == []


def test_after_an_error_the_key_is_free_for_the_mended_request(
    client: TestClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    assert create(client, "").status_code == 422
    monkeypatch.setattr("app.registry.datasets.service.create_dataset", None)
    assert create(client).status_code == 500
    monkeypatch.undo()
    assert rows(database) == []
    assert create(client).status_code == 201
    assert names(client) == ["Ink"]


def test_a_repeat_waits_for_the_first_until_its_process_is_gone(
    client: TestClient, database: Database
) -> None:
    """A process that was killed renews nothing."""
    with database.write() as session:
        assert idempotency.hold_key(session, "loopback", KEY[HEADER], "killed") is None
    running = create(client)
    assert (running.status_code, running.headers["retry-after"]) == (409, "1")
    let_expire(database)
    assert create(client).status_code == 201
    with database.write() as session:  # the first one comes back after all
        idempotency.keep_answer(session, "killed", status=201, body="{}")
    assert create(client).json()["name"] == "Ink"


def test_keys_of_another_caller_are_others(client: TestClient, database: Database) -> None:
    with database.write() as session:
        assert idempotency.hold_key(session, "session:1", KEY[HEADER], "theirs") is None
    assert create(client).status_code == 201


@pytest.mark.parametrize("was_killed", [False, True])
def test_of_requests_to_two_processes_at_the_same_time_one_is_done(
    client: TestClient, other_process: TestClient, database: Database, was_killed: bool
) -> None:
    together = Barrier(TOGETHER)
    if was_killed:  # the process that held the key
        with database.write() as session:
            idempotency.hold_key(session, "loopback", KEY[HEADER], "killed")
        let_expire(database)

    def send(number: int) -> Response:
        together.wait()
        return create((client, other_process)[number % 2])

    with ThreadPoolExecutor(TOGETHER) as threads:
        answers = list(threads.map(send, range(TOGETHER)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    created = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.content for answer in created}) == 1
    assert len([answer for answer in created if REPLAYED not in answer.headers]) == 1
    assert names(client) == ["Ink"]


def test_an_upload_is_known_again_whatever_separates_its_files(
    client: TestClient, png: Png
) -> None:
    create(client, headers={})
    image = {"files": ("fox.png", png(1), "image/png")}
    address = f"{DATASETS}/1/images"
    first, second = (client.post(address, files=image, headers=KEY) for _ in range(2))
    boundaries = {answer.request.headers["content-type"] for answer in (first, second)}
    assert len(boundaries) == 2
    assert second.headers[REPLAYED] == "true"
    assert second.json() == first.json()
    assert first.json()["accepted"][0]["duplicate"] is False
    other = {"files": ("fox.png", png(2), "image/png")}
    assert client.post(address, files=other, headers=KEY).status_code == 422


def test_lines_of_progress_are_not_kept(client: TestClient, database: Database, png: Png) -> None:
    create(client, headers={})
    image = {"files": ("fox.png", png(1), "image/png")}
    headers = {**KEY, "accept": "application/x-ndjson"}
    assert client.post(f"{DATASETS}/1/images", files=image, headers=headers).status_code == 200
    assert rows(database) == []


def test_it_is_kept_over_a_restart_and_goes_after_a_day(
    client: TestClient, other_process: TestClient, database: Database
) -> None:
    first, after = create(client), create(other_process)
    assert (after.content, after.headers[REPLAYED]) == (first.content, "true")
    let_expire(database)
    with database.write() as session:
        idempotency.delete_expired(session)
    assert rows(database) == []
    assert create(client).json()["id"] != first.json()["id"]


def test_a_request_that_takes_long_keeps_its_key(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=1))
    sent: list[Message] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        (held,) = rows(database)
        while rows(database)[0].expires_at == held.expires_at:
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": DATASETS, "query_string": b"", "app": app}
    scope["headers"] = [(HEADER.lower().encode(), b"key")]
    asyncio.run(IdempotencyKeys(slow, prefix="/api/v1/")(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert [row.status for row in rows(database)] == [201]


def test_every_operation_that_creates_has_the_header_in_its_description(app: FastAPI) -> None:
    document = app.openapi()
    known = document["components"]["parameters"]["IdempotencyKey"]
    assert known["schema"] == SCHEMA
    reference = {"$ref": "#/components/parameters/IdempotencyKey"}
    for method, path, operation in operations(document):
        has_key = reference in operation.get("parameters", [])
        assert has_key is (method == "post" and path.startswith("/api/v1/")), path
        assert not has_key or {"409", "422"} <= set(operation["responses"])
