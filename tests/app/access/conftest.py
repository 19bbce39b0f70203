"""A server with a password, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.access import secret_marks
from app.registry.state import AppState
from app.web.access.login import Login

PASSWORD = "correct horse"
Clients = Callable[..., TestClient]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def cheap_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of passwords cost a thousandth of what they do."""
    monkeypatch.setitem(secret_marks.SCRYPT, "n", 16)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def locked_app(app: FastAPI, clock: Clock) -> Iterator[FastAPI]:
    """An app that asks for PASSWORD, whose throttle and cache go by `clock`."""
    was = app.state.login
    app.state.login = Login(password=PASSWORD, clock=clock)
    yield app
    app.state.login = was


@pytest.fixture
def make_client(locked_app: FastAPI) -> Clients:
    """A function that makes a client at an address; it keeps cookies and follows nothing."""

    def make(address: str = "192.0.2.1", *, https: bool = False, page: bool = True) -> TestClient:
        client = TestClient(
            locked_app,
            base_url="https://localhost" if https else "http://localhost",
            client=(address, 50_000),
            follow_redirects=False,
        )
        if page:
            client.headers.update({"accept": "text/html", "user-agent": "Mozilla/5.0 Firefox/150"})
        return client

    return make


@pytest.fixture
def browser(make_client: Clients) -> TestClient:
    """A browser that is not logged in."""
    return make_client()


@pytest.fixture
def program(make_client: Clients) -> TestClient:
    """A client that asks for no pages."""
    return make_client("192.0.2.2", page=False)


@pytest.fixture
def login(locked_app: FastAPI) -> Login:
    found: Login = locked_app.state.login
    return found


@pytest.fixture
def locked_state(locked_app: FastAPI) -> AppState:
    found: AppState = locked_app.state.brushwork
    return found


def log_in(client: TestClient, password: str = PASSWORD, **fields: str) -> int:
    """Send the form; the status."""
    return client.post("/login", data={"password": password, **fields}).status_code
