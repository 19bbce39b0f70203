"""The pages of people and of one's own account."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.people import accounts, service
from app.registry.tables.people import AccessToken
from tests.app.people.conftest import ClientOf, find_person, state_of

LINK = re.compile(r'data-copy="http://localhost(/invite/[\w-]+)"')
TOKEN = re.compile(r'data-copy="(bw_[\w-]+)"')


def test_an_administrator_invites_and_the_link_is_shown_once(client_of: ClientOf) -> None:
    eva = client_of("Eva")
    made = eva.post("/people", data={"name": "Farah", "role": "viewer"}).text
    (link,) = LINK.findall(made)
    later = eva.get("/people").text
    assert "Farah" in later
    assert link not in later
    assert client_of(None).get(link).status_code == 200
    key = re.search(r'action="/people/(\d+)/withdraw"', later)
    assert key is not None
    eva.post(f"/people/{key[1]}/withdraw")
    assert client_of(None).get(link).status_code == 404
    assert "link withdrawn" in eva.get("/people/log").text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ana", "There is a person with the name “Ana” already."),
        ("x" * 1_000, "Enter a name of 1 to 60 characters."),
        ("a\x07b", "The name contains invisible characters."),
    ],
)
def test_a_wrong_name_is_said_at_the_field(client_of: ClientOf, name: str, sentence: str) -> None:
    answer = client_of("Eva").post("/people", data={"name": name, "role": "member"})
    assert answer.status_code == 422
    assert sentence in answer.text


def test_roles_and_accounts_change_at_once(people_app: FastAPI, client_of: ClientOf) -> None:
    eva, ana, key = client_of("Eva"), client_of("Ana"), find_person(people_app, "Ana").key
    with state_of(people_app).database.write() as session:
        service.get_user(session, 1).password_hash = "not empty"
    assert ana.get("/people").status_code == 403
    assert eva.post(f"/people/{key}", data={"role": "admin"}).status_code == 303
    assert ana.get("/people").status_code == 200
    eva.post(f"/people/{key}", data={"role": "member", "name": "Anna"})
    assert "Anna" in ana.get("/account").text
    assert ana.get("/people").status_code == 403
    eva.post(f"/people/{key}", data={"act": "disable"})
    assert ana.get("/account").status_code == 303  # to the page to log in
    refused = eva.post("/people/1", data={"role": "member"})
    assert refused.status_code == 422
    assert "is the last administrator" in refused.text


def test_a_leavers_things_go_to_somebody(people_app: FastAPI, client_of: ClientOf) -> None:
    client_of("Ana").post("/datasets", data={"name": "Prints"})
    key, heir = find_person(people_app, "Ana").key, find_person(people_app, "Ben").key
    eva = client_of("Eva")
    eva.post(f"/people/{heir}", data={"role": "viewer"})
    refused = eva.post(f"/people/{key}/transfer", data={"heir": heir})
    assert "Ben is a viewer, who changes nothing." in refused.text
    eva.post(f"/people/{heir}", data={"role": "member"})
    eva.post(f"/people/{key}/transfer", data={"heir": heir})
    assert "by <bdi>Ben</bdi>" in client_of("Ana").get("/datasets/prints").text


def test_a_token_is_shown_once_and_ends(people_app: FastAPI, client_of: ClientOf) -> None:
    ana = client_of("Ana")
    made = ana.post("/account/tokens", data={"name": "script", "scope": "read", "days": "7"}).text
    (token,) = TOKEN.findall(made)
    program = client_of(None)
    program.headers["authorization"] = f"Bearer {token}"
    assert program.get("/api/v1/datasets").status_code == 200
    assert program.get("/account").status_code == 403
    assert token not in ana.get("/account").text
    with state_of(people_app).database.read() as session:
        row = session.exec(select(AccessToken)).one()
    assert client_of("Ben").post(f"/account/tokens/{row.id}/delete").status_code == 404
    ana.post(f"/account/tokens/{row.id}/delete")
    assert program.get("/api/v1/datasets").status_code == 401


def test_a_person_ends_only_their_own_sessions(client_of: ClientOf) -> None:
    first, second, ben = client_of("Ana"), client_of("Ana"), client_of("Ben")
    page = second.get("/account").text
    (key,) = re.findall(r'action="/account/sessions/(\d+)/end"', page)
    assert ben.post(f"/account/sessions/{key}/end").status_code == 404
    second.post(f"/account/sessions/{key}/end")
    assert first.get("/account").status_code == 303
    assert second.get("/account").status_code == 200


def test_sessions_of_all_are_for_administrators(client_of: ClientOf) -> None:
    ana, eva = client_of("Ana"), client_of("Eva")
    assert ana.get("/sessions").headers["location"] == "/account"
    page = eva.get("/sessions").text
    assert "<bdi>Ana</bdi>, session" in page
    (key,) = re.findall(r'"End session (\d+),', page)
    assert ana.post(f"/sessions/{key}/end").status_code == 403
    assert eva.post(f"/sessions/{key}/end").status_code == 303
    assert ana.get("/account").status_code == 303


def test_the_password_is_changed_with_the_old_one(
    people_app: FastAPI, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = client_of("Ana")
    form = {"old_password": "wrong", "password": "seven purple kettles dancing"}
    refused = ana.post("/account/password", data=form)
    assert refused.status_code == 422
    assert "This is not your present password." in refused.text
    monkeypatch.setattr(accounts, "_check", lambda *_: True)
    assert ana.post("/account/password", data=form).status_code == 303
    assert find_person(people_app, "Ana").password_hash is not None


def test_new_things_are_private_if_the_person_says_so(client_of: ClientOf) -> None:
    ana = client_of("Ana")
    assert ana.post("/account/makes", data={"makes": "private"}).status_code == 303
    ana.post("/datasets", data={"name": "Prints"})
    assert client_of("Ben").get("/datasets/prints").status_code == 404


def test_without_accounts_pages_say_nothing_of_people(client: TestClient) -> None:
    for path in ("/", "/datasets", "/runs", "/adapters", "/play", "/recipes", "/base-models"):
        page = client.get(path).text
        assert not re.search(r'/account|/people|/share/|id="share"|bdi>.*studio', page), path
    for path in ("/people", "/account"):
        assert client.get(path).status_code == 404
