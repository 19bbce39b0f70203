"""The pages to log in with a name and to use an invitation, and the states that exclude others."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlmodel import select

from app.registry.access import service as sessions
from app.registry.access.delays import FREE_TRIES
from app.registry.access.secret_marks import START
from app.registry.actor import Role
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import Conflict
from app.registry.people import invitations
from app.registry.people import service as people
from app.registry.tables.people import LoginSession, User
from app.supervisor.address import AddressError, check_exposure, exposure_hints
from app.web.access.login import Login
from tests.app.people.conftest import ClientOf, find_person, state_of
from tests.conftest import AppMaker

GOOD = "staple battery horse"
Browsers = Callable[..., TestClient]


@pytest.fixture
def browser_at(people_app: FastAPI) -> Iterator[Browsers]:
    """A function: a browser at an address, which keeps cookies and follows nothing."""

    def make(address: str = "192.0.2.1") -> TestClient:
        client = TestClient(
            people_app,
            base_url="http://localhost",
            client=(address, 1),
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        client.headers.update({"accept": "text/html", "user-agent": "Mozilla/5.0 Firefox/150"})
        return client

    return make


def link_for(app: FastAPI, name: str) -> str:
    with state_of(app).database.write() as session:
        user = people.find_user(session, name)
        assert user is not None
        return invitations.PATH + invitations.make_invitation(session, user)


def log_in(browser: TestClient, name: str, password: str = GOOD) -> int:
    return browser.post("/login", data={"name": name, "password": password}).status_code


def test_a_link_shows_a_form_and_only_sending_it_uses_it(
    people_app: FastAPI, browser_at: Browsers
) -> None:
    link, browser = link_for(people_app, "Ana"), browser_at()
    for _ in range(2):
        page = browser.get(link)
        assert (page.status_code, "Welcome, Ana" in page.text) == (200, True)
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "strict-origin"  # never with the path
    weak = browser.post(link, data={"password": "too short"})
    assert (weak.status_code, "12 to 128" in weak.text) == (422, True)
    done = browser.post(link, data={"password": GOOD})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert browser.get("/datasets").status_code == 200
    for again in (browser.get(link), browser.post(link, data={"password": GOOD})):
        assert (again.status_code, "used already" in again.text) == (410, True)
        assert "Ana" not in again.text
    assert browser.get("/invite/nothing").status_code == 404
    assert browser.post("/invite/nothing", data={"password": GOOD}).status_code == 404


def test_the_form_of_another_site_uses_no_link(people_app: FastAPI, browser_at: Browsers) -> None:
    link = link_for(people_app, "Ana")
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        sent = browser_at().post(link, data={"password": GOOD}, headers=headers)
        assert sent.status_code == 403
    own = {"origin": "http://localhost"}
    assert browser_at().post(link, data={"password": GOOD}, headers=own).status_code == 303


def test_a_person_logs_in_and_out(people_app: FastAPI, browser_at: Browsers) -> None:
    browser_at().post(link_for(people_app, "Ana"), data={"password": GOOD})
    browser = browser_at()
    assert 'name="name"' in browser.get("/login").text
    refused = browser.post("/login", data={"name": "Ana", "password": "wrong"})
    unknown = browser.post("/login", data={"name": "Ana ", "password": "wrong"})
    assert refused.status_code == 403
    assert refused.text == unknown.text.replace("Ana ", "Ana")
    assert browser.get("/datasets").status_code == 303
    assert log_in(browser, "ana") == 303
    assert browser.get("/datasets").status_code == 200
    with state_of(people_app).database.read() as session:
        row = session.exec(select(LoginSession).order_by(LoginSession.id.desc())).first()  # type: ignore[union-attr]
    assert row is not None
    assert (row.user_id, row.browser) == (find_person(people_app, "Ana").key, "Firefox")
    out = browser.post("/logout")
    assert out.headers["clear-site-data"] == '"cache"'
    assert browser.get("/datasets").status_code == 303


def test_a_known_browser_logs_in_while_others_guess(
    people_app: FastAPI, browser_at: Browsers
) -> None:
    known, other = browser_at("192.0.2.1"), browser_at("192.0.2.7")
    known.post(link_for(people_app, "Ana"), data={"password": GOOD})
    known.post("/logout")
    statuses = [log_in(other, "Ana", "wrong") for _ in range(FREE_TRIES + 2)]
    assert statuses == [403] * (FREE_TRIES + 1) + [429]
    delayed = browser_at("192.0.2.1").post("/login", data={"name": "Ana", "password": GOOD})
    assert (delayed.status_code, delayed.headers["retry-after"]) == (429, "2")
    assert log_in(known, "Ana") == 303


def test_a_browser_known_as_two_people_is_known_as_both(
    people_app: FastAPI, browser_at: Browsers
) -> None:
    browser = browser_at()
    for name in ("Ana", "Ben"):
        browser.post(link_for(people_app, name), data={"password": GOOD})
    assert len([name for name in browser.cookies if "known" in name]) == 2
    for _ in range(FREE_TRIES + 1):
        log_in(browser_at(), "Ana", "wrong")
    assert [log_in(browser, name) for name in ("Ana", "Ben")] == [303, 303]


def test_a_token_in_the_address_is_ignored(people_app: FastAPI, client_of: ClientOf) -> None:
    token = client_of("Ana", "read").headers["authorization"].removeprefix("Bearer ")
    for name in ("token", "access_token", "api_key", "apiKey"):
        assert client_of(None).get(f"/api/v1/datasets?{name}={token}").status_code == 401
    assert client_of(None).get(f"/login?token={token}").status_code == 200


def test_a_password_is_no_token(people_app: FastAPI, browser_at: Browsers) -> None:
    browser_at().post(link_for(people_app, "Ana"), data={"password": GOOD})
    answer = browser_at().get("/api/v1/datasets", auth=("Ana", GOOD), headers={"accept": "*/*"})
    assert answer.status_code == 401


def test_links_are_not_logged(
    people_app: FastAPI, browser_at: Browsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(said))
    link = link_for(people_app, "Ana")
    monkeypatch.setattr(invitations, "token_hash", lambda _: 1 / 0)
    assert browser_at().get(link).status_code == 500
    assert "/invite/…" in said.getvalue()
    assert link not in said.getvalue()


def test_the_login_page_tells_who_is_first_how_to_begin(app: FastAPI) -> None:
    was, app.state.login = app.state.login, Login(password=None, accounts=True)
    page = TestClient(app, base_url="http://localhost").get("/login").text
    app.state.login = was
    assert "brushwork users invite NAME --role admin" in page
    assert 'name="password"' not in page


# -- states that exclude each other ---------------------------------------------------------------


@pytest.mark.parametrize(
    "secret", [{"password": SecretStr("correct horse")}, {"start_token": True}]
)
def test_accounts_refuse_any_other_way_in(
    make_app: AppMaker, settings: Settings, secret: dict[str, object]
) -> None:
    changed = settings.model_copy(update={"accounts": True, **secret})
    with pytest.raises(AddressError, match=f"BRUSHWORK_{next(iter(secret)).upper()}"):
        check_exposure(changed)
    with pytest.raises(Conflict, match="BRUSHWORK_ACCOUNTS"):
        make_app(changed)


def test_accounts_may_be_reached_from_elsewhere_and_are_never_private(settings: Settings) -> None:
    wider = settings.model_copy(update={"accounts": True, "host": "0.0.0.0"})
    check_exposure(wider)
    check_exposure(wider.model_copy(update={"allowed_hosts": "brushwork.example"}))
    assert not settings.model_copy(update={"accounts": True}).is_private
    assert "users invite" in "".join(exposure_hints(wider))


def test_without_accounts_a_server_with_people_does_not_start(
    make_app: AppMaker, settings: Settings
) -> None:
    app = make_app(settings.model_copy(update={"accounts": True}))
    with state_of(app).database.write() as session:
        people.add_user(session, "Eva", Role.ADMIN)
    with pytest.raises(Conflict) as refused:
        make_app(settings)
    for way in ("BRUSHWORK_ACCOUNTS=on", "brushwork users leave"):
        assert way in refused.value.detail
    with TestClient(app):  # closes what it opened
        pass


def sessions_after(app: FastAPI, login: Login) -> list[str]:
    """The marks of sessions that are left after a start with these secrets."""
    app.state.login = login
    login.end_sessions_of_other_secrets(state_of(app).database)
    with state_of(app).database.read() as session:
        return [row.secret_mark for row in session.exec(select(LoginSession))]


def test_sessions_of_one_state_end_in_another(people_app: FastAPI, client_of: ClientOf) -> None:
    client_of("Ana")
    with state_of(people_app).database.write() as session:
        sessions.open_session(session, secret_mark=START, address="", browser="")
    assert sessions_after(people_app, Login(password=None, accounts=True)) == ["person"]
    assert sessions_after(people_app, Login(password=None, start_token="x")) == []
    old = Login(password="correct horse")
    old.open_session(state_of(people_app).database, "password", address="", browser="")
    assert sessions_after(people_app, Login(password=None, accounts=True)) == []


def test_a_demotion_holds_at_the_next_request(people_app: FastAPI, client_of: ClientOf) -> None:
    eva, database = client_of("Eva"), state_of(people_app).database
    assert eva.get("/people").status_code == 200
    set_role(database, find_person(people_app, "Ana"), Role.ADMIN)
    set_role(database, find_person(people_app, "Eva"), Role.MEMBER)
    assert eva.get("/people").status_code == 403


def set_role(database: Database, user: User, role: Role) -> None:
    with database.write() as session:
        row = session.get_one(User, user.key)
        row.password_hash = "chosen"
        people.set_role(session, row, role)
