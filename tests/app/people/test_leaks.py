"""What one person keeps private is in no answer to another."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.tables import owned
from app.registry.tables.owned import _named, class_of
from app.web.access.login import Login
from tests.app.access.test_rights import read_table
from tests.app.people.canaries import (
    HASH,
    SKIPPED,
    Planted,
    addresses,
    bodies,
    canaries_in,
    plant,
    queries,
    rows_of,
    same_but_ids,
)
from tests.app.people.conftest import ClientOf, find_person, state_of
from tests.browser.filled_registry import fill_state


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A folder, and after the first test what was planted: the data folder is made once."""
    return [tmp_path_factory.mktemp("planted") / "data"]


@pytest.fixture
def planted(people_app: FastAPI, kept: list[Any]) -> Planted:
    """Everything is Ana's and private."""
    state = state_of(people_app)
    data = state.settings.data_dir
    if len(kept) == 2:
        state.database.dispose()
        shutil.rmtree(data)
        shutil.copytree(kept[0], data)
        planted: Planted = kept[1]
        return planted
    with_accounts = people_app.state.login
    people_app.state.login = Login(password=None)
    html = {"accept": "text/html"}
    client = TestClient(
        people_app, base_url="http://localhost", headers=html, follow_redirects=False
    )
    fill_state(state, client)
    people_app.state.login = with_accounts
    kept.append(plant(state, find_person(people_app, "Ana").key))
    state.database.dispose()
    shutil.copytree(data, kept[0])
    return kept[1]  # type: ignore[no-any-return]


def others(client_of: ClientOf) -> dict[str, TestClient]:
    found = {
        "Ben": client_of("Ben"),
        "Ben's token": client_of("Ben", "write"),
        "Vic": client_of("Vic"),
    }
    for client in found.values():
        client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    return found


def leaks(planted: Planted, client: TestClient, most: int, *, routes: set[str] | None) -> list[str]:
    """The addresses that give away a private thing, each with what it gives away."""
    found: list[str] = []
    absent_answers: dict[str, Any] = {}
    for route, address, absent in addresses(planted, "GET", most):
        if routes is not None and route not in routes:
            continue
        answer = client.get(address)
        if told := canaries_in(answer, planted, address):
            found.append(f"GET {route} ({address}): {answer.status_code} {sorted(told)[:4]}")
        if absent == address:
            continue
        if absent not in absent_answers:
            absent_answers[absent] = same_but_ids(client.get(absent), absent)
        here, there = same_but_ids(answer, address), absent_answers[absent]
        if here != there:
            found.append(f"GET {route} ({address}): {here[0]} differs from {there[0]} of absent")
    return found


def leaks_of_queries(planted: Planted, client: TestClient, routes: set[str] | None) -> list[str]:
    found = []
    for address in queries(planted):
        if routes is not None and address.partition("?")[0] not in routes:
            continue
        answer = client.get(address)
        if told := canaries_in(answer, planted, address):
            found.append(f"GET {address}: {answer.status_code} {sorted(told)[:4]}")
    return found


MOST = 3  # values of each parameter
QUICK = {row["action"]: row["path"] for row in read_table("routes.csv") if row["method"] == "GET"}
SOME = {*QUICK.values(), "/media/{sha256}", "/adapters", "/datasets/{slug}", "/runs/{run_id}",
        "/api/v1/adapters", "/api/v1/jobs", "/api/v1/renders", "/"} - SKIPPED  # fmt: skip


def test_no_private_thing_is_told(planted: Planted, client_of: ClientOf) -> None:
    client = others(client_of)["Ben"]
    found = leaks(planted, client, 2, routes=SOME) + leaks_of_queries(planted, client, SOME)
    assert not found, "\n".join(found)


@pytest.mark.wide
@pytest.mark.parametrize("who", ["Ben", "Ben's token", "Vic"])
def test_no_route_tells_a_private_thing(planted: Planted, client_of: ClientOf, who: str) -> None:
    client = others(client_of)[who]
    found = leaks(planted, client, MOST, routes=None) + leaks_of_queries(planted, client, None)
    assert not found, "\n".join(found)


def test_without_the_filter_it_is_told(
    planted: Planted, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "is_limited", lambda name: False)
    found = leaks(planted, others(client_of)["Ben"], 1, routes={"/api/v1/adapters", "/runs"})
    assert len(found) == 2, found


@pytest.mark.wide
def test_what_names_a_private_thing_is_refused(
    people_app: FastAPI, planted: Planted, client_of: ClientOf
) -> None:
    """Requests with paths and bodies that name Ana's things change and make nothing."""
    client = others(client_of)["Ben's token"]
    before, ben, document = (
        rows_of(people_app),
        find_person(people_app, "Ben").key,
        people_app.openapi(),
    )
    found = []
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for route, address, absent in addresses(planted, method, 2):
            for which in range(2):
                body = body_of(document, method, route, planted, which)
                answer = client.request(method, address, json=body)
                if told := canaries_in(answer, planted, address + json.dumps(body)):
                    found.append(f"{method} {address} {body}: {answer.status_code} {told}")
                if address != absent and answer.is_success:
                    found.append(f"{method} {address} {body}: {answer.status_code}")
    after = rows_of(people_app)
    for table, rows in before.items():
        for key, row in rows.items():
            if after[table].get(key) != row:
                found.append(f"{table} {key} was changed")
    for table, rows in after.items():
        for key in rows.keys() - before[table].keys():
            row = rows[key]
            named = {
                (name, one) for name, some in _named(as_row(table, row)).items() for one in some
            } - {("base_model", 1)}
            of_hers = {(name, one) for name, one in named if (one,) in before.get(name, {})}
            if of_hers or planted.hashes & set(HASH.findall(json.dumps(row, default=str))):
                found.append(f"{table} {key} of {row.get('owner_id')} (not {ben}) names {of_hers}")
    assert not found, "\n".join(found)


def as_row(table: str, row: dict[str, Any]) -> Any:
    return class_of(table)(**{key: one for key, one in row.items() if key != "id"})


def body_of(document: dict[str, Any], method: str, route: str, planted: Planted, which: int) -> Any:
    operation = document["paths"].get(route, {}).get(method.lower(), {})
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return bodies(document, content["schema"], planted, which) if content else None
