"""With a start token only the user who started the server gets in; without it, all stays."""

from __future__ import annotations

import re
import stat
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.cli import serving, web
from app.registry.access.start_token import (
    FILE_NAME,
    existing_start_token,
    login_url,
    make_start_token,
    read_start_token,
)
from app.registry.config import Settings
from app.supervisor.lock import LockOwner
from tests.conftest import AppMaker

URL = "http://127.0.0.1:8188"


@pytest.fixture
def with_token(settings: Settings) -> Settings:
    return settings.model_copy(update={"start_token": True})


@pytest.fixture
def token(with_token: Settings) -> str:
    return make_start_token(with_token.data_dir)


@pytest.fixture
def browser(make_app: AppMaker, with_token: Settings, token: str) -> Iterator[TestClient]:
    """A browser of somebody on this machine."""
    with TestClient(
        make_app(with_token),
        base_url="http://localhost",
        client=("127.0.0.1", 1),
        headers={"accept": "text/html", "user-agent": "Mozilla/5.0"},
        follow_redirects=False,
    ) as client:
        yield client


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_private_and_new_with_each_start(with_token: Settings, token: str) -> None:
    file = with_token.data_dir / FILE_NAME
    assert mode(file) == 0o600
    assert read_start_token(with_token) == token
    file.chmod(0o644)  # a backup was restored carelessly
    assert make_start_token(with_token.data_dir) != token
    assert mode(file) == 0o600
    assert [path.name for path in with_token.data_dir.glob(".*")] == []


def test_nobody_gets_in_without_it(browser: TestClient) -> None:
    assert browser.get("/").headers["location"] == "/login"
    page = browser.get("/login")
    assert page.status_code == 200
    assert "printed where it was" in page.text
    assert 'type="password"' not in page.text
    for path in ("/api/v1/datasets", "/metrics", "/openapi.json", "/media/" + "0" * 64):
        answer = browser.get(path, headers={"accept": "*/*"})
        assert answer.status_code == 401
        assert FILE_NAME in answer.json()["detail"]
    assert browser.post("/api/v1/base-models", json={"source": "/root"}).status_code == 401
    assert browser.get("/healthz").status_code == browser.get("/readyz").status_code == 200


def test_the_login_address_opens_a_session(browser: TestClient, token: str) -> None:
    answer = browser.get(login_url("", token))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert token not in str(answer.headers)
    assert answer.headers["cache-control"] == "no-store"
    assert browser.get("/runs").status_code == 200
    assert browser.post("/logout").status_code == 303
    assert browser.get("/runs").status_code == 303
    assert browser.get(login_url("", token) + "&next=/play").headers["location"] == "/play"


def test_a_wrong_or_old_token_opens_nothing(browser: TestClient) -> None:
    for token in ("", "guess", "g" * 1_000):
        answer = browser.get(login_url("", token))
        assert answer.status_code == 403
        assert "no longer valid" in answer.text
        assert "set-cookie" not in answer.headers


def test_pages_that_open_login_addresses_lock_nobody_out(browser: TestClient, token: str) -> None:
    for number in range(20):
        browser.get(login_url("", f"guess{number}"), headers={"sec-fetch-site": "cross-site"})
    bearer = {"accept": "*/*", "authorization": f"Bearer {token}"}
    assert browser.get("/api/v1/datasets", headers=bearer).status_code == 200


def test_a_program_that_guesses_the_token_is_slowed_down(browser: TestClient) -> None:
    statuses = [
        browser.get(
            "/api/v1/datasets", headers={"accept": "*/*", "authorization": f"Bearer guess{number}"}
        ).status_code
        for number in range(8)
    ]
    assert statuses == [401] * 6 + [429] * 2


def test_a_program_sends_the_token(browser: TestClient, token: str) -> None:
    for headers in ({"authorization": f"Bearer {token}"}, {}):
        answer = browser.get("/api/v1/datasets", headers=headers | {"accept": "*/*"})
        assert answer.status_code == (200 if headers else 401)


def test_a_session_outlives_a_restart_but_not_the_setting(
    browser: TestClient, make_app: AppMaker, with_token: Settings, token: str
) -> None:
    browser.get(login_url("", token))
    cookie = {"cookie": f"brushwork-session={browser.cookies['brushwork-session']}"}
    make_start_token(with_token.data_dir)
    assert status_of(make_app(with_token), cookie) == 200
    locked = with_token.model_copy(update={"start_token": False, "password": SecretStr("x" * 9)})
    assert status_of(make_app(locked), cookie) == 401


def status_of(app: FastAPI, headers: dict[str, str]) -> int:
    with TestClient(app, base_url="http://localhost") as client:
        return client.get("/api/v1/datasets", headers=headers).status_code


def test_without_the_setting_nothing_is_asked_or_written(
    make_app: AppMaker, settings: Settings
) -> None:
    assert read_start_token(settings) is None
    assert existing_start_token(settings.data_dir) is None
    assert status_of(make_app(settings), {}) == 200
    assert not (settings.data_dir / FILE_NAME).exists()


# -- what the start says -------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was started with."""
    found: list[str] = []
    monkeypatch.setattr(serving, "has_desktop", lambda *_, **__: True)
    monkeypatch.setattr(serving.webbrowser, "open", found.append)
    return found


def test_the_login_address_is_printed_on_a_second_line(
    with_token: Settings, token: str, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    serving.announce(URL, settings=with_token)
    said = capsys.readouterr().out
    assert re.findall(r"^Brushwork is ready at .*$", said, re.M) == [f"Brushwork is ready at {URL}"]
    assert said.index("is ready at") < said.index(f"Log in at {URL}/login?token={token}\n")
    (address,) = opened
    assert token not in address  # other users see the arguments of a process
    page = Path(address.removeprefix("file://"))
    assert mode(page) == 0o600
    assert f"url={URL}/login?token={token}" in page.read_text()


def test_without_a_token_the_start_says_and_opens_what_it_always_did(
    settings: Settings, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    serving.announce(URL, settings=settings)
    said = capsys.readouterr().out
    assert f"\nBrushwork is ready at {URL}\n" in said
    assert "Log in" not in said
    assert opened == [URL]


def test_a_second_start_says_the_login_address_too(
    with_token: Settings, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serving._say_login_address(with_token, LockOwner(1, URL))
    assert capsys.readouterr().out == f"Log in at {URL}/login?token={token}\n"


def test_web_alone_says_the_login_address_and_below_a_supervisor_does_not(
    with_token: Settings, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    web._say_address(URL, with_token, token=token)
    assert capsys.readouterr().out == f"Listening at {URL}\nLog in at {URL}/login?token={token}\n"
    assert web.start_token_of(Namespace(fd=7), with_token) == token  # the one of `serve`
    assert web.start_token_of(Namespace(fd=None), with_token) != token
