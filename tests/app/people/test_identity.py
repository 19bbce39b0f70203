"""Who a request comes from with accounts, and what that changes."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import col, select

from app.registry.db import utcnow
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import Event
from app.registry.tables.people import AccessToken, User
from tests.app.people.conftest import ClientOf, find_person, state_of


def test_nobody_gets_in_without_a_session_or_a_token(client_of: ClientOf) -> None:
    stranger = client_of(None)
    assert stranger.get("/api/v1/datasets").status_code == 401
    for given in ("Bearer wrong", "Basic d3Jvbmc6d3Jvbmc=", "Bearer "):
        answer = stranger.get("/api/v1/datasets", headers={"authorization": given})
        assert answer.status_code == 401


def test_a_person_is_known_by_a_browser_and_by_a_token(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    for client in (client_of("Ana"), client_of("Ana", "write")):
        made = client.post("/api/v1/datasets", json={"name": "Chalk"})
        assert made.status_code == 201, made.text
    with state_of(people_app).database.read() as session:
        owners = session.exec(select(Dataset.owner_id)).all()
        actors = session.exec(select(Event.user_id).where(Event.subject == "dataset")).all()
    assert set(owners) == {find_person(people_app, "Ana").key}
    assert set(actors) <= {find_person(people_app, "Ana").key}


def test_private_things_are_absent_for_others(people_app: FastAPI, client_of: ClientOf) -> None:
    made = client_of("Ana", "write").post("/api/v1/datasets", json={"name": "Chalk"}).json()
    with state_of(people_app).database.write() as session:
        session.get_one(Dataset, made["id"]).visibility = "private"
    statuses = {
        name: client_of(name, "read").get(f"/api/v1/datasets/{made['id']}").status_code
        for name in ("Ana", "Ben", "Vic", "Eva")
    }
    assert statuses == {"Ana": 200, "Ben": 404, "Vic": 404, "Eva": 200}
    ben = client_of("Ben", "read")
    absent = ben.get("/api/v1/datasets/999").json()
    assert ben.get(f"/api/v1/datasets/{made['id']}").json() == absent


def test_a_disabled_person_and_an_expired_token_open_nothing(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    browser, program = client_of("Ana"), client_of("Ana", "read")
    expired = client_of("Ana", "read", days=-1)
    assert expired.get("/api/v1/datasets").status_code == 401
    assert program.get("/api/v1/datasets").status_code == 200
    with state_of(people_app).database.write() as session:
        session.exec(
            sa.update(User).where(col(User.name) == "Ana").values(disabled_at=utcnow()),
            execution_options={"synchronize_session": False},
        )
    assert program.get("/api/v1/datasets").status_code == 401
    assert browser.get("/datasets").status_code == 303


def test_a_token_is_stored_as_its_hash_alone(people_app: FastAPI, client_of: ClientOf) -> None:
    token = client_of("Ana", "read").headers["authorization"].removeprefix("Bearer ")
    with state_of(people_app).database.read() as session:
        rows = session.exec(select(AccessToken)).all()
    assert token not in str([row.model_dump() for row in rows])
