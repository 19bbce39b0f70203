"""What one person keeps private is in no answer to another."""

from __future__ import annotations

import json
import shutil
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.tables import owned
from app.registry.tables.owned import NAMES, _named, class_of
from app.web import media
from app.web.access import gate
from app.web.access.login import Login
from app.web.access.rights import grants
from tests.app.access.test_rights import read_table
from tests.app.people.canaries import (
    HASH,
    SKIPPED,
    Planted,
    Rows,
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


@pytest.mark.wide
def test_head_tells_no_more_than_of_absent_things(planted: Planted, client_of: ClientOf) -> None:
    client, found = others(client_of)["Ben"], []
    for route, address, absent in addresses(planted, "GET", 1):
        answer = client.head(address)
        told = canaries_in(answer, planted, address)
        here = there = same_but_ids(answer, address)
        if absent != address:
            there = same_but_ids(client.head(absent), absent)
        if told or here != there:
            found.append(f"HEAD {route} ({address}): {here} {there} {sorted(told)[:4]}")
    assert not found, "\n".join(found)


def test_lists_count_what_their_reader_sees(planted: Planted, client_of: ClientOf) -> None:
    ana, ben, counted = client_of("Ana", "read"), client_of("Ben", "read"), {}
    for row in read_table("routes.csv"):
        path = row["path"]
        if row["method"] != "GET" or not path.startswith("/api/") or "{" in path:
            continue
        answers = [client.get(path) for client in (ana, ben)]
        if "x-total-count" in answers[0].headers:
            counted[path] = [int(one.headers["x-total-count"]) for one in answers]
            assert counted[path][1] == len(answers[1].json()), path
    bens = {path.rpartition("/")[2]: seen for path, (_, seen) in counted.items() if seen}
    kinds = counted["/api/v1/storage"][0]  # of files: what they take of the machine is everybody's
    assert bens == {"base-models": 1, "presets": 3, "storage": kinds}  # those that come with it
    assert sum(hers > seen for hers, seen in counted.values()) > 7, counted


def test_without_the_filter_it_is_told(
    planted: Planted, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "is_limited", lambda name: False)
    found = leaks(planted, others(client_of)["Ben"], 1, routes={"/api/v1/adapters", "/runs"})
    assert len(found) == 2, found


SHOWING = {
    "adapter": "/adapters/{slug}",
    "base_model": "/api/v1/base-models",
    "blind_test": "/api/v1/blind-tests",
    "caption_model": "/api/v1/caption-models/{model_id}",
    "checkpoint": "/api/v1/storage/forever/runs/{run_id}/checkpoints/{step}",
    "dataset": "/api/v1/datasets/{dataset_id}",
    "dataset_version": "/api/v1/dataset-versions/{version_id}/export",
    "grid": "/api/v1/storage/forever/grids/{grid_id}",
    "image": "/api/v1/images/{image_id}",
    "io_job": "/api/v1/evaluations",
    "own_preset": "/api/v1/presets",
    "prompt_set": "/api/v1/prompt-sets",
    "recipe": "/api/v1/recipes",
    "render": "/api/v1/renders",
    "run": "/api/v1/runs/{run_id}",
    "sweep": "/api/v1/sweeps",
}
"""A route that shows rows of a table; those of the other tables come by one of these."""


def test_without_one_declaration_it_is_told(
    planted: Planted, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_owned` notices that of any table, also of one that no route reads by itself."""
    ben = others(client_of)["Ben"]
    assert leaks(planted, ben, 1, routes=set(SHOWING.values())) == []
    assert owned._things.keys() <= SHOWING.keys()
    for table, route in SHOWING.items():
        with monkeypatch.context() as patch:
            patch.delitem(owned._things if table in owned._things else owned._parents, table)
            assert leaks(planted, ben, 1, routes={route}), table


Sent = list[tuple[str, str, str, httpx.Response]]


def send_all(app: FastAPI, planted: Planted, client: TestClient, most: int) -> Sent:
    """Requests whose paths, bodies and forms name Ana's things: (method, route, asked, answer)."""
    document, found = app.openapi(), []
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for route, address, _ in addresses(planted, method, most):
            for which in range(most):
                if route.startswith("/api/"):
                    body = body_of(document, method, route, planted, which)
                    answer = client.request(method, address, json=body)
                else:
                    body = form(planted, which)
                    answer = client.request(method, address, data=body)
                found.append((method, route, f"{address} {json.dumps(body)}", answer))
    return found


@pytest.mark.wide
@pytest.mark.parametrize("scope", [None, "write"])
def test_what_names_a_private_thing_is_refused(
    people_app: FastAPI, planted: Planted, client_of: ClientOf, scope: str | None
) -> None:
    """It changes nothing of hers, and nothing is made that names it."""
    before = rows_of(people_app)
    client = client_of("Ben", scope)
    client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    found = []
    for method, route, asked, answer in send_all(people_app, planted, client, 2):
        if told := canaries_in(answer, planted, asked):
            found.append(f"{method} {route} {asked}: {answer.status_code} {sorted(told)[:4]}")
        if "{" in route and answer.is_success and not route.startswith(HARMLESS):
            found.append(f"{method} {route} {asked}: {answer.status_code}")
    found += changes(people_app, planted, before)
    assert not found, "\n".join(found)


HARMLESS = ("/share/", "/invite/")
"""Routes whose answer of 200 is the form again; they are held by what they change."""


def changes(app: FastAPI, planted: Planted, before: Rows) -> list[str]:
    """Rows that are not as before, and new ones that name private things."""
    found, after = [], rows_of(app)
    for table, rows in after.items():
        old = before.get(table, {})
        found += [f"{table} {key} is changed" for key in old if rows.get(key) != old[key]]
        for key in rows.keys() - old.keys():
            named = _named(as_row(table, rows[key])) if table != "share" else {}
            named.pop("base_model", None)
            hers = [
                (name, one)
                for name, some in named.items()
                for one in some
                if (one,) in before.get(name, {})
            ]
            told = planted.hashes & set(HASH.findall(json.dumps(rows[key], default=str)))
            if hers or told or table == "share":
                found.append(f"{table} {key} is new and names {hers} {sorted(told)[:2]}")
    return found


@pytest.mark.wide
def test_the_same_requests_of_the_owner_change_much(
    people_app: FastAPI, planted: Planted, client_of: ClientOf
) -> None:
    before, client = rows_of(people_app), client_of("Ana", "write")
    client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    sent = send_all(people_app, planted, client, 1)
    done = {(method, route) for method, route, _, answer in sent if answer.status_code < 400}
    assert len(done) > 40, sorted(done)
    assert len(changes(people_app, planted, before)) > 20


@pytest.mark.wide
@pytest.mark.parametrize("who", ["Ben", "Vic"])
def test_what_the_studio_sees_is_changed_by_nobody_else(
    people_app: FastAPI, planted: Planted, client_of: ClientOf, who: str
) -> None:
    """Whoever is refused is told who may."""
    with state_of(people_app).database.engine.begin() as connection:
        for table in owned._things:
            thing = class_of(table).__table__
            connection.execute(thing.update().values(visibility="studio"))
    before, client = rows_of(people_app), client_of(who)
    client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    sent = send_all(people_app, planted, client, 2)
    after = rows_of(people_app)
    found = [
        f"{table} {key} is changed"
        for table, rows in before.items()
        for key, row in rows.items()
        if after[table].get(key) != row
    ]
    refused = [one for one in sent if one[3].status_code == 403]
    found += [
        f"{method} {asked} names nobody: {answer.text}"
        for method, _, asked, answer in refused
        if "Only Ana or an administrator" not in answer.text
        and "which an administrator can give you" not in answer.text
    ]
    assert not found, "\n".join(found)
    assert len(refused) > 200, len(refused)


def as_row(table: str, row: dict[str, Any]) -> Any:
    return class_of(table)(**{key: one for key, one in row.items() if key != "id"})


def body_of(document: dict[str, Any], method: str, route: str, planted: Planted, which: int) -> Any:
    operation = document["paths"].get(route, {}).get(method.lower(), {})
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return bodies(document, content["schema"], planted, which) if content else None


def form(planted: Planted, which: int) -> dict[str, str]:
    """Fields of forms of pages that name things."""
    named = {key: str(planted.ids.get(table, [1])[which]) for key, table in NAMES.items()}
    slug = planted.slugs["adapter"][which]
    named |= {"adapter-0": slug, "on-0": "1", "dataset": planted.slugs["dataset"][which]}
    named |= {"ids": "1", "version": "1", "alias": "best", "prompt": "a fox", "name": "x"}
    return named | {"render": "1", "run": "1", "image": "1", "sha256": min(planted.hashes)}


def image_leaks(planted: Planted, client: TestClient) -> list[str]:
    found = leaks(planted, client, 5, routes={"/media/{sha256}"})
    for sha256 in sorted(planted.hashes)[:5]:
        answer = client.get(f"/media/{sha256}", headers={"if-none-match": f'"{sha256}"'})
        found += [f"{sha256}: {answer.status_code}"] * (answer.status_code != 404)
    return found


def test_images_by_address_are_guarded(
    planted: Planted, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ben = client_of("Ben")
    assert image_leaks(planted, ben) == []
    monkeypatch.setattr(media, "_require_visible", lambda *_: None)
    assert len(image_leaks(planted, ben)) > 4


def test_the_scopes_of_tokens_are_what_refuses(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, new = client_of("Ben", "read"), {"name": "New"}
    assert reader.post("/api/v1/datasets", json=new).status_code == 403
    monkeypatch.setattr(gate, "grants", lambda role, scope: grants(role, None))
    assert reader.post("/api/v1/datasets", json=new).status_code == 201
