"""Every route says what it needs, and one gate holds it."""

from __future__ import annotations

import re

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import Mount

from app.registry.config import Settings
from app.registry.state import AppState
from app.web.access.needs import (
    Action,
    Router,
    UndeclaredRoute,
    declared,
    make_rules,
    needs,
    rule_of,
)
from tests.app.access.conftest import PASSWORD, Clients, log_in

OPEN = {"/healthz", "/readyz", "/login", "/invite/{token}", "/theme", "/static"}
FILLED = {"sha256": "0" * 64, "size": "small"}


def filled(path: str) -> str:
    """An address with something for each of its parameters."""
    return re.sub(r"\{(\w+)[^}]*\}", lambda name: FILLED.get(name[1], "1"), path)


def test_every_route_of_the_app_says_what_it_needs(routed_app: FastAPI) -> None:
    undeclared = [
        context.path
        for context in iter_route_contexts(routed_app.routes)
        if declared(context) is None
    ]
    assert undeclared == []
    assert len(make_rules(routed_app.routes)) > 130


def test_a_route_that_nobody_declared_keeps_the_app_from_starting(settings: Settings) -> None:
    for add in (
        lambda app: app.add_api_route("/new", lambda: "secret"),
        lambda app: app.mount("/new", FastAPI()),
        lambda app: app.include_router(router_with_a_route()),
    ):
        app = FastAPI()
        for route in app.routes:
            needs(Action.LOOK)(route.endpoint)  # type: ignore[attr-defined]
        add(app)
        with pytest.raises(UndeclaredRoute, match="/new does not say what it needs"):
            make_rules(app.routes)


def router_with_a_route() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/new", lambda: "secret")
    return router


def test_only_these_routes_are_open(routed_app: FastAPI) -> None:
    rules = make_rules(routed_app.routes)
    assert {rule.path for rule in rules if rule.action is Action.OPEN} == OPEN


def test_every_route_that_is_not_open_asks_for_the_password(
    locked_app: FastAPI, program: TestClient
) -> None:
    asked = 0
    for context in iter_route_contexts(locked_app.routes):
        for method in sorted(context.methods or {"GET"}):
            if context.path in OPEN:
                continue
            asked += 1
            answer = program.request(method, filled(str(context.path)))
            assert answer.status_code == 401, (method, context.path)
            assert answer.headers["www-authenticate"].startswith("Basic")
            if method != "HEAD":
                assert answer.headers["content-type"] == "application/problem+json"
    assert asked > 130


def test_files_jobs_metrics_and_descriptions_are_closed(program: TestClient) -> None:
    for path in (
        "/", "/docs", "/openapi.json", "/metrics", "/system", "/sessions", "/nowhere",
        "/media/" + "0" * 64, "/api/v1/tool-jobs/1", "/api/v1/adapters/1/download",
    ):  # fmt: skip
        assert program.get(path).status_code == 401, path
        assert program.head(path).status_code == 401, path
    assert program.options("/api/v1/datasets").status_code == 401


def test_what_is_open_is_answered_without_a_password(program: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/login", "/static/css/tokens.css"):
        assert program.get(path).status_code == 200, path
    assert program.get("/static/../app/main.py").status_code in (401, 404)
    assert program.get("/static/%2e%2e/pyproject.toml").status_code == 404


def test_mounts_are_routes_too(routed_app: FastAPI) -> None:
    mounts = [route for route in routed_app.routes if isinstance(route, Mount)]
    assert [mount.path for mount in mounts] == ["/static"]


def test_routes_of_a_path_have_their_own_actions() -> None:
    router = Router()

    @router.get("/thing", Action.LOOK)
    def look() -> None: ...

    @router.post("/thing", Action.EDIT)
    def edit() -> None: ...

    rules = make_rules(router.routes)

    def action(method: str, path: str) -> Action:
        rule = rule_of(rules, {"type": "http", "path": path, "method": method})
        return rule.action if rule else Action.LOOK

    assert action("GET", "/thing") is Action.LOOK
    assert action("POST", "/thing") is Action.EDIT
    assert action("DELETE", "/thing") is Action.LOOK  # answered with 405
    assert action("POST", "/missing") is Action.LOOK


# -- what people and programs see --------------------------------------------------------------


def test_a_page_leads_to_the_login_and_on_from_there(browser: TestClient) -> None:
    answer = browser.get("/runs?status=failed")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/login?next=/runs%3Fstatus%3Dfailed",
    )
    assert browser.head("/runs?status=failed").headers["location"] == answer.headers["location"]
    page = browser.get(answer.headers["location"]).text
    assert 'name="next" value="/runs?status=failed"' in page
    assert browser.get("/").headers["location"] == "/login"
    assert browser.get("/api/v1/datasets").headers["location"] == "/login?next=/api/v1/datasets"


def test_a_script_of_a_page_gets_no_window_of_the_browser(make_client: Clients) -> None:
    script = make_client()
    script.headers.update({"accept": "*/*", "sec-fetch-mode": "cors"})
    answer = script.get("/api/v1/datasets")
    assert answer.status_code == 401
    assert "www-authenticate" not in answer.headers
    fragment = {"hx-request": "true", "hx-current-url": "http://localhost/runs/1?a=b"}
    answer = script.get("/runs/1", headers=fragment)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/login?next=/runs/1%3Fa%3Db"
    answer = script.post("/runs", headers=fragment)
    assert "hx-redirect" not in answer.headers  # what was typed stays on the page
    assert "Log in in another tab" in answer.text


def test_a_form_that_is_sent_without_a_session_says_how_to_keep_it(browser: TestClient) -> None:
    answer = browser.post("/datasets", data={"name": "typed"})
    assert answer.status_code == 401
    assert "Log in in another tab" in answer.text
    assert 'href="/login"' in answer.text


def test_a_database_that_is_away_is_503_and_probes_still_answer(
    browser: TestClient, login_was_lost: None
) -> None:
    answer = browser.get("/api/v1/datasets", headers={"accept": "*/*"})
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert browser.get("/datasets").status_code == 503
    for path in ("/healthz", "/login", "/static/css/tokens.css"):
        assert browser.get(path).status_code == 200


@pytest.fixture
def login_was_lost(
    browser: TestClient, locked_state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser is logged in, then the database's file is gone with its folder."""
    assert log_in(browser) == 303
    locked_state.database.dispose()
    assert locked_state.settings.data_dir.exists()
    locked_state.settings.data_dir.rename(locked_state.settings.data_dir.with_name("away"))


def test_passwords_of_programs_open_as_before(program: TestClient) -> None:
    assert program.get("/api/v1/datasets", auth=("any", PASSWORD)).status_code == 200
    bearer = {"authorization": f"Bearer {PASSWORD}"}
    assert program.get("/api/v1/datasets", headers=bearer).status_code == 200
