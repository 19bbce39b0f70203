"""Answers of the API about things say whose they are, with accounts."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.app.people.conftest import ClientOf, train_privately

LISTS = ("datasets", "adapters", "runs", "presets", "base-models", "prompt-sets", "recipes",
    "renders", "grids", "sweeps", "blind-tests")  # fmt: skip


def owned(answer: Any) -> tuple[str | None, str | None]:
    return answer["owner"], answer["visibility"]


def test_owner_and_visibility_are_told(people_app: FastAPI, client_of: ClientOf) -> None:
    train_privately(people_app, "Ana")
    ana, eva = client_of("Ana", "read"), client_of("Eva", "read")
    for path in ("datasets", "runs", "adapters"):
        for client in (ana, eva):
            (found,) = client.get(f"/api/v1/{path}").json()
            assert owned(found) == ("Ana", "private"), path
        assert client_of("Ben", "read").get(f"/api/v1/{path}").json() == []
    made = client_of("Ben", "write").post("/api/v1/datasets", json={"name": "Prints"}).json()
    assert owned(made) == ("Ben", "studio")
    assert {owned(one) for one in ana.get("/api/v1/presets").json()} == {(None, None)}  # shipped


def test_every_list_of_things_has_them(app: FastAPI) -> None:
    document = app.openapi()
    for path in LISTS:
        answer = document["paths"][f"/api/v1/{path}"]["get"]["responses"]["200"]
        name = answer["content"]["application/json"]["schema"]["items"]["$ref"].rpartition("/")[2]
        required = document["components"]["schemas"][name]["required"]
        assert {"owner", "visibility"} <= set(required), path


def test_without_accounts_both_are_null_and_nobody_is_looked_up(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.people.service.names", pytest.fail)
    made = client.post("/api/v1/datasets", json={"name": "Prints"}).json()
    assert owned(made) == (None, None)
    assert [owned(one) for one in client.get("/api/v1/datasets").json()] == [(None, None)]
