"""People by the API."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.tables.people import KeyedRequest
from tests.app.people.conftest import ClientOf, find_person, state_of
from tests.documented import check_answer

PEOPLE = "/api/v1/people"


def test_an_administrator_invites_changes_and_resets(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    eva = client_of("Eva", "admin")
    made = eva.post(PEOPLE, json={"name": "Farah", "role": "viewer"})
    check_answer(people_app, made)
    assert made.status_code == 201
    address, link = made.headers["location"], made.json()["link"]
    assert client_of(None).get(link).status_code == 200
    shown = eva.get(address).json()
    assert (shown["name"], shown["role"], shown["disabled"]) == ("Farah", "viewer", False)
    assert "link" not in shown
    assert shown in eva.get(PEOPLE).json()
    newer = eva.post(f"{address}/reset").json()["link"]
    assert client_of(None).get(link).status_code == 404
    assert client_of(None).get(newer).status_code == 200
    withdrawn = eva.post(f"{address}/withdraw")
    check_answer(people_app, withdrawn)
    assert withdrawn.json() == shown
    assert client_of(None).get(newer).status_code == 404
    changed = eva.patch(address, json={"role": "member", "disabled": True}).json()
    assert (changed["role"], changed["disabled"]) == ("member", True)
    assert eva.post(f"{address}/reset").status_code == 409


def test_what_is_refused_is_said(people_app: FastAPI, client_of: ClientOf) -> None:
    eva = client_of("Eva", "admin")
    twice = eva.post(PEOPLE, json={"name": "ANA"})
    assert (twice.status_code, "already" in twice.json()["detail"]) == (409, True)
    for name in ("x" * 1_000, "x" * 61, "a\x07b", " "):
        answer = eva.post(PEOPLE, json={"name": name})
        assert [error["field"] for error in answer.json()["errors"]] == ["name"], name
    last = eva.patch(f"{PEOPLE}/1", json={"role": "member"})
    assert "is the last administrator" in last.json()["detail"]
    check_answer(people_app, last)
    assert client_of("Ana", "write").get(PEOPLE).status_code == 403
    assert client_of("Eva", "write").get(PEOPLE).status_code == 403


def test_a_link_is_not_kept_for_the_key_of_its_request(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    eva, key = client_of("Eva", "admin"), {"idempotency-key": "farah"}
    assert eva.post(PEOPLE, json={"name": "Farah"}, headers=key).status_code == 201
    with state_of(people_app).database.read() as session:
        assert session.exec(select(KeyedRequest)).all() == []
    assert eva.post(PEOPLE, json={"name": "Farah"}, headers=key).status_code == 409


def test_a_leavers_things_go_to_somebody(people_app: FastAPI, client_of: ClientOf) -> None:
    client_of("Ana").post("/datasets", data={"name": "Prints"})
    eva, path = client_of("Eva", "admin"), f"{PEOPLE}/{find_person(people_app, 'Ana').key}/transfer"
    assert eva.post(path, json={"to": "Nobody"}).json()["errors"][0]["field"] == "to"
    assert eva.post(path, json={"to": "ben"}).json() == {"moved": 1}
    assert "by <bdi>Ben</bdi>" in client_of("Ana").get("/datasets/prints").text


def test_without_accounts_there_is_nobody_and_nobody_is_invited(client: TestClient) -> None:
    assert client.get(PEOPLE).status_code == 404
    assert client.post(PEOPLE, json={"name": "Farah"}).status_code == 404
    assert client.patch(f"{PEOPLE}/1", json={"name": "Farah"}).status_code == 404
