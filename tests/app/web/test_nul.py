"""The character NUL: every text field refuses it, and no address breaks on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.config import Settings
from app.registry.db import Database
from app.web.openapi import operations
from tests.app.web.test_methods import PARAMETER, methods_of_paths
from tests.conftest import AppMaker, empty_tables, make_base_ready

REASON = "This has the character NUL (U+0000), which cannot be stored. Remove it."
HTML = {"accept": "text/html"}
Png = Callable[..., bytes]


@pytest.fixture
def postgres_client(
    make_app: AppMaker, tmp_path: Path, migrated_postgres: sa.Engine
) -> Iterator[TestClient]:
    """A client of an app on PostgreSQL that raises no errors."""
    with migrated_postgres.begin() as connection:
        empty_tables(connection)
    make_base_ready(Database(migrated_postgres))
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database_url=migrated_postgres.url.render_as_string(hide_password=False),
        broker_url=f"filesystem://{tmp_path}/broker",
        allowed_hosts="localhost",
    )
    app = make_app(settings)
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    with client:
        yield client


def test_every_body_of_the_api_is_refused_with_the_field(app: FastAPI, client: TestClient) -> None:
    looked_at = 0
    for method, path, operation in operations(app.openapi()):
        if "application/json" not in operation.get("requestBody", {}).get("content", {}):
            continue
        looked_at += 1
        body = {"name": "a\0b", "more": [{"prompt": "\0"}], "key\0": 1}
        answer = client.request(method, PARAMETER.sub("1", path), json=body)
        assert answer.status_code == 422, path
        fields = {error["field"]: error["detail"] for error in answer.json()["errors"]}
        assert fields == dict.fromkeys(("name", "more.0.prompt", "key"), REASON), path
    assert looked_at > 30


def test_forms_are_refused_with_the_field(client: TestClient) -> None:
    client.post("/datasets", data={"name": "Ink"})
    for address, field in (
        ("/datasets", "name"),
        ("/datasets/ink", "trigger_word"),
        ("/datasets/ink/edits/preview", "text"),
        ("/train/new", "name"),
        ("/play", "prompt"),
        ("/grids/new", "title"),
    ):
        sent = {"name": "Ink", field: "a\0b"}
        for answer in (
            client.post(address, data=sent),
            client.post(address, data=sent, files={"files": ("a.txt", b"a")}),
        ):
            assert answer.status_code == 422, address
            assert answer.json()["errors"] == [{"field": field, "detail": REASON}], address
    page = client.post("/datasets", data={"name": "\0"}, headers=HTML)
    assert (page.status_code, REASON in page.text) == (422, True)
    assert [row["name"] for row in client.get("/api/v1/datasets").json()] == ["Ink"]


def test_no_address_with_it_is_an_error_on_postgresql(
    app: FastAPI, postgres_client: TestClient
) -> None:
    client = postgres_client
    wrong = []
    for path, methods in methods_of_paths(app).items():
        if path == "/openapi.json":  # made by FastAPI; it reads nothing of the request
            continue
        for method in methods - {"HEAD"}:
            asked = [f"{path}?q=%00&sort=%00&dataset=a%00&name=%00"]
            if "1" in path.split("/"):
                asked.append("/".join("%00a" if part == "1" else part for part in path.split("/")))
            for address in asked:
                answer = client.request(method, address, headers=HTML)
                expected = {422} if "?" in address else {404, 405}
                if answer.status_code not in expected:
                    wrong.append((method, address, answer.status_code))
    assert wrong == []


def test_addresses_of_files_with_it_are_not_found(client: TestClient) -> None:
    client.post("/datasets", data={"name": "Ink"})
    assert client.get("/static/a%00b.css").status_code == 404
    assert client.get("/nothing/a%00b").status_code == 404
    assert client.get("/media/a%00b").status_code == 404


def test_other_control_characters_are_left_out_of_names(client: TestClient, png: Png) -> None:
    image = ("files", ("a.png", png(1), "image/png"))
    sent = {"name": "a\x07 \x1b[1mb", "trigger_word": "in\x07k"}
    client.post("/datasets", data=sent, files=[image])
    client.post("/api/v1/datasets", json=sent)
    names = [(row["name"], row["trigger_word"]) for row in client.get("/api/v1/datasets").json()]
    assert names == [("a [1mb", "ink")] * 2
    renamed = client.patch("/api/v1/datasets/1", json={"name": "In\x85k\n 2"})
    assert renamed.json()["name"] == "Ink 2"
    for answer in (
        client.patch("/api/v1/datasets/1", json={"name": "\x07"}),
        client.post("/api/v1/datasets", json={"name": "\x07"}),
        client.post("/datasets", data={"name": "\x07"}, headers={"accept": "application/json"}),
    ):
        assert answer.status_code == 422
        assert "Give the dataset a name" in answer.text
    client.post("/api/v1/runs", json={"dataset_id": 1, "name": "Ru\x07n"})
    assert client.get("/api/v1/runs/1").json()["name"] == "Run"
