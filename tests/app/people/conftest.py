"""A server with accounts and three people: Eva, administrator, and the members Ana and Ben."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.access import service as sessions
from app.registry.access.secret_marks import PERSON
from app.registry.actor import Limits, Principal, Role, Visibility, acting_as, making_for
from app.registry.people import passwords, tokens
from app.registry.people import service as people
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.people import User
from app.web.access.login import Login
from tests import fake_workers

PEOPLE = {
    "Eva": Role.ADMIN,
    "Ana": Role.MEMBER,
    "Ben": Role.MEMBER,
    "Vic": Role.VIEWER,
}
ClientOf = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hashes of passwords cost a thousandth of what they do."""
    monkeypatch.setattr(passwords, "COST", {"time_cost": 1, "memory_cost": 8, "parallelism": 1})
    passwords._hash_of_nobody.cache_clear()
    yield
    passwords._hash_of_nobody.cache_clear()


@pytest.fixture
def people_app(app: FastAPI) -> Iterator[FastAPI]:
    """An app with accounts, in which all of PEOPLE exist; the first one is number 1."""
    was, state = app.state.login, state_of(app)
    app.state.login = Login(password=None, accounts=True)
    state.database.limits = Limits()
    with state.database.write() as session:
        for name, role in PEOPLE.items():
            people.add_user(session, name, role)
    yield app
    app.state.login, state.database.limits = was, None


def state_of(app: FastAPI) -> AppState:
    state: AppState = app.state.brushwork
    return state


def find_person(app: FastAPI, name: str) -> User:
    with state_of(app).database.read() as session:
        user = people.find_user(session, name)
        assert user is not None
        return user


@pytest.fixture
def client_of(people_app: FastAPI) -> ClientOf:
    """A function: a client of a person; a browser, or with a scope a program with a token."""

    def make(name: str | None, scope: str | None = None, *, days: int = 1) -> TestClient:
        client = TestClient(people_app, base_url="http://localhost", follow_redirects=False)
        if name is None:
            return client
        user = find_person(people_app, name)
        with state_of(people_app).database.write() as session:
            if scope is not None:
                token, _ = tokens.make_token(session, user, "test", scope, days=days)
                client.headers["authorization"] = f"Bearer {token}"
            else:
                token, _ = sessions.open_session(
                    session, secret_mark=PERSON, address="", browser="", user_id=user.key
                )
                client.cookies.set("brushwork-session", token, domain="localhost.local")
                client.headers["accept"] = "text/html"
        return client

    return make


@contextmanager
def working_as(app: FastAPI, name: str, makes: Visibility = Visibility.STUDIO) -> Iterator[None]:
    """Read and write inside as this person does in a request."""
    user = find_person(app, name)
    principal = Principal(user.key, Role(user.role), name, makes)
    with acting_as(f"person:{name}", principal):
        yield


def train_privately(app: FastAPI, name: str, title: str = "Secret") -> Adapter:
    """An adapter of a person, with a dataset, samples and a checkpoint, all private."""
    state = state_of(app)
    with working_as(app, name, Visibility.PRIVATE):
        fake_workers.queued_run(state, fake_workers.dataset(state, title))
    with making_for(find_person(app, name).key, Visibility.PRIVATE):
        training = fake_workers.FakeTraining(state)
        training.train(20)
        training.checkpoint()
        training.sample(20)
        return training.finish()
