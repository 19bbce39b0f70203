"""A session begins with the password and ends: by logging out, by time, by another password."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlmodel import select

from app.registry.access import service
from app.registry.access.secret_marks import SecretMarks
from app.registry.config import Settings
from app.registry.db import Database, utcnow
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.registry.tables.jobs import Event
from app.registry.tables.people import LoginSession
from app.web.access.login import Login
from tests import fake_workers
from tests.app.access.conftest import PASSWORD, Clients, Clock, log_in
from tests.conftest import AppMaker


def open_one(database: Database, mark: str = "m") -> tuple[str, LoginSession]:
    with database.write() as session:
        return service.open_session(session, secret_mark=mark, address="192.0.2.1", browser="x")


def find(database: Database, token: str) -> LoginSession | None:
    with database.read() as session:
        return service.find_session(session, service.token_hash(token))


def change(database: Database, **values: object) -> None:
    with database.write() as session:
        session.connection().execute(sa.update(LoginSession).values(**values))


# -- rows ----------------------------------------------------------------------------------------


def test_the_token_is_stored_nowhere(database: Database) -> None:
    token, _ = open_one(database)
    with database.read() as session:
        row = session.exec(select(LoginSession)).one()
    assert token not in str(row.model_dump())
    assert row.token_sha256 == service.token_hash(token)
    assert row.user_id is None
    found = find(database, token)
    assert found is not None
    assert found.key == row.key
    assert find(database, token + "x") is None


def test_a_session_ends_when_it_is_not_used_and_at_last_in_any_case(database: Database) -> None:
    for values in (
        {"last_used_at": utcnow() - service.IDLE_END},
        {"expires_at": utcnow() - timedelta(seconds=1)},
    ):
        token, _ = open_one(database)
        change(database, **values)
        assert find(database, token) is None
        with database.read() as session:
            assert service.list_sessions(session) == []
        open_one(database)  # the next login removes the row
        with database.write() as session:
            assert len(session.exec(select(LoginSession)).all()) == 1
            service.end_other_sessions(session, None)


def test_use_keeps_a_session_alive_but_not_beyond_its_absolute_end(database: Database) -> None:
    token, row = open_one(database)
    change(database, last_used_at=utcnow() - service.IDLE_END + timedelta(hours=1))
    marks = SecretMarks(PASSWORD)
    change(database, secret_mark=marks.own())
    assert Login(password=PASSWORD).look_up(database, token) is not None
    with database.read() as session:
        used = session.get_one(LoginSession, row.key)
        assert service.aware(used.last_used_at) > utcnow() - timedelta(minutes=1)
        assert service.aware(used.expires_at) == row.expires_at


def test_only_so_many_sessions_are_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_SESSIONS", 3)
    tokens = [open_one(database)[0] for _ in range(5)]
    found = [find(database, token) for token in tokens]
    assert [row is not None for row in found] == [False, False, True, True, True]


def test_sessions_of_another_password_end(database: Database) -> None:
    old, new = SecretMarks("the old one"), SecretMarks("the new one")
    open_one(database, old.own())
    _, kept = open_one(database, new.own())
    assert SecretMarks("the new one").fits(kept.secret_mark)  # another process, another salt
    with database.write() as session:
        assert service.end_sessions_of_other_secrets(session, new.fits) == 1
        assert [row.key for row in service.list_sessions(session)] == [kept.key]


def test_ending_a_session_twice_says_so(database: Database) -> None:
    _, row = open_one(database)
    with database.write() as session:
        service.end_session(session, row.key)
    with database.write() as session, pytest.raises(NotFound):
        service.end_session(session, row.key)


# -- pages ---------------------------------------------------------------------------------------


def test_the_password_opens_a_session_and_logging_out_ends_it(
    browser: TestClient, locked_state: AppState
) -> None:
    answer = browser.post("/login", data={"password": PASSWORD, "next": "/runs?a=b"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?a=b")
    (cookie,) = answer.headers.get_list("set-cookie")
    assert cookie.startswith("brushwork-session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    page = browser.get("/runs").text
    assert 'action="/logout"' in page
    token = browser.cookies["brushwork-session"]
    assert browser.post("/logout").headers["location"] == "/login"
    assert "brushwork-session" not in browser.cookies
    stolen = {"cookie": f"brushwork-session={token}"}
    assert browser.get("/runs", headers=stolen).status_code == 303
    with locked_state.database.read() as session:
        assert service.list_sessions(session) == []


def test_with_https_the_cookie_is_bound_to_host_and_connection(make_client: Clients) -> None:
    client = make_client(https=True)
    (cookie,) = client.post("/login", data={"password": PASSWORD}).headers.get_list("set-cookie")
    assert cookie.startswith("__Host-brushwork-session=")
    assert "Secure" in cookie
    assert client.get("/runs").status_code == 200
    assert client.post("/logout").status_code == 303
    assert client.get("/runs").status_code == 303


ELSEWHERE = [
    "https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)",
    "\\\\evil.example", "/\t/evil.example", "/\n//evil.example", "evil", "/login", "/logout",
    "/login?next=/login", "/" + "x" * 49_000, "",
]  # fmt: skip


def test_logging_in_leads_only_to_pages_of_this_server(make_client: Clients) -> None:
    for wanted in ELSEWHERE:
        answer = make_client().post("/login", data={"password": PASSWORD, "next": wanted})
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), wanted


def test_a_wrong_password_opens_nothing(browser: TestClient) -> None:
    answer = browser.post("/login", data={"password": "wrong", "next": "/runs"})
    assert answer.status_code == 403
    assert "The password is wrong." in answer.text
    assert 'value="/runs"' in answer.text  # where it leads is not lost
    assert "set-cookie" not in answer.headers
    for body in ({}, {"password": ""}, {"password": "x" * 5_000}):
        assert browser.post("/login", data=body).status_code in (403, 422)


def test_the_password_is_no_login_address(browser: TestClient) -> None:
    answer = browser.get("/login", params={"token": PASSWORD})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


def test_headers_that_are_no_addresses_are_refused_without_an_error(browser: TestClient) -> None:
    answer = browser.post("/login", data={"password": PASSWORD}, headers={"origin": "http://["})
    assert answer.status_code == 403
    headers = {"hx-request": "true", "hx-current-url": "http://["}
    assert browser.get("/running", headers=headers).status_code == 401


@pytest.mark.parametrize("password", ["geheim-voilà", "eight…\x85", "spaces inside"])
def test_any_password_can_be_sent_as_a_token(app: FastAPI, password: str) -> None:
    was, app.state.login = app.state.login, Login(password=password)
    client = TestClient(app, base_url="http://localhost")
    token = password.encode()
    try:
        answer = client.get("/api/v1/datasets", headers={b"authorization": b"Bearer " + token})
    finally:
        app.state.login = was
    assert answer.status_code == 200


def test_a_made_up_cookie_opens_nothing(make_client: Clients) -> None:
    client = make_client(page=False)
    for token in ("", "x", "é", "a" * 5_000, "' OR 1=1 --"):
        cookie = f"brushwork-session={token}".encode()
        answer = client.get("/api/v1/datasets", headers={b"cookie": cookie})
        assert answer.status_code == 401, token


def test_another_site_can_neither_log_in_nor_out(browser: TestClient) -> None:
    cross = {"sec-fetch-site": "cross-site"}
    assert browser.post("/login", data={"password": PASSWORD}, headers=cross).status_code == 403
    assert log_in(browser) == 303
    assert browser.post("/logout", headers=cross).status_code == 403
    assert browser.get("/runs").status_code == 200


def test_each_login_has_a_token_of_its_own_and_the_old_one_ends(browser: TestClient) -> None:
    log_in(browser)
    first = browser.cookies["brushwork-session"]
    log_in(browser)
    assert browser.cookies["brushwork-session"] != first
    stolen = {"cookie": f"brushwork-session={first}"}
    assert browser.get("/runs", headers=stolen).status_code == 303


def test_the_login_page_tells_nothing_about_the_registry(browser: TestClient) -> None:
    page = browser.get("/login").text
    for private in ("/runs", "/system", "Training", "logout"):
        assert private not in page
    assert 'autocomplete="current-password"' in page
    assert '<label for="password">' in page
    assert "<script" not in page.partition("<body>")[2]


def test_sessions_are_listed_and_ended(make_client: Clients, browser: TestClient) -> None:
    other = make_client("192.0.2.77")
    log_in(browser)
    log_in(other)
    page = browser.get("/sessions").text
    assert "192.0.2.1" in page
    assert "192.0.2.77" in page
    assert page.count("This browser") == 1
    listed = browser.get("/api/v1/sessions", headers={"accept": "*/*"}).json()
    assert {row["address"] for row in listed} == {"192.0.2.1", "192.0.2.77"}
    (elsewhere,) = [row["id"] for row in listed if row["address"] == "192.0.2.77"]
    assert browser.post(f"/sessions/{elsewhere}/end").status_code == 303
    assert other.get("/runs").status_code == 303
    assert browser.get("/runs").status_code == 200
    log_in(other)
    assert browser.post("/sessions/end-others").status_code == 303
    assert other.get("/runs").status_code == 303
    (own,) = browser.get("/api/v1/sessions", headers={"accept": "*/*"}).json()
    assert browser.delete(f"/api/v1/sessions/{own['id']}").status_code == 204
    assert browser.get("/runs").status_code == 303


def test_a_session_that_ended_elsewhere_is_noticed_soon(
    browser: TestClient, locked_state: AppState, clock: Clock
) -> None:
    log_in(browser)
    assert browser.get("/runs").status_code == 200
    with locked_state.database.write() as session:  # another web process ends it
        service.end_other_sessions(session, None)
    clock.now += 6
    assert browser.get("/runs").status_code == 303


def test_another_password_ends_every_session(
    browser: TestClient, make_app: AppMaker, settings: Settings
) -> None:
    log_in(browser)
    cookie = {"cookie": f"brushwork-session={browser.cookies['brushwork-session']}"}
    for password, status in ((PASSWORD, 200), ("another one", 401), (PASSWORD, 401)):
        changed = settings.model_copy(update={"password": SecretStr(password)})
        with TestClient(make_app(changed), base_url="http://localhost") as client:
            assert client.get("/api/v1/datasets", headers=cookie).status_code == status


def test_without_a_password_the_login_leads_home(client: TestClient) -> None:
    answer = client.get("/login?next=/runs", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert "asks for no password" in client.get("/sessions").text
    assert 'action="/logout"' not in client.get("/runs").text


# -- who did it ----------------------------------------------------------------------------------


def test_events_say_who_caused_them(
    browser: TestClient, program: TestClient, locked_state: AppState
) -> None:
    log_in(browser)
    order = {"prompt": "a fox"}
    json = {"accept": "*/*"}
    assert browser.post("/api/v1/renders", json=order, headers=json).status_code == 202
    program.post("/api/v1/renders", json=order | {"prompt": "a cat"}, auth=("me", PASSWORD))
    with locked_state.database.read() as session:
        opened = session.exec(select(Event).where(Event.subject == "login_session")).one()
        events = session.exec(
            select(Event).where(Event.subject == "render", Event.kind == "queued")
        ).all()
    assert (opened.kind, opened.actor) == ("opened", f"session:{opened.subject_id}")
    assert [event.actor for event in events] == [f"session:{opened.subject_id}", "basic"]


def test_the_history_of_a_run_says_who_asked_for_what(
    browser: TestClient, locked_state: AppState
) -> None:
    log_in(browser)
    run = fake_workers.queued_run(locked_state, fake_workers.dataset(locked_state))
    browser.post(f"/api/v1/runs/{run.key}/cancel", headers={"accept": "*/*"})
    (session,) = browser.get("/api/v1/sessions", headers={"accept": "*/*"}).json()
    page = browser.get(f"/runs/{run.key}").text
    assert f"Canceled <small>by session {session['id']}</small>" in page
    assert "Queued</span>" in page  # by nobody who was named
