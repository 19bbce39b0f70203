"""A proxy says who a request comes from: only from its own address, only people who exist here."""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.actor import Role
from app.registry.config import Settings
from app.registry.db import utcnow
from app.registry.people import service as people
from app.registry.tables.people import User
from app.supervisor.address import AddressError, check_exposure
from tests.app.access.test_proxies import NAME, Proxy, example, free_port, run_caddy, wait_for
from tests.app.people.conftest import PEOPLE, find_person, state_of
from tests.conftest import AppMaker, skip_unless_ci
from tests.live_server import serve

PROXY = "192.0.2.9"
HEADER = "Remote-User"
Behind = Callable[..., TestClient]


@pytest.fixture
def behind_settings(settings: Settings) -> Settings:
    changes = {"accounts": True, "identity_header": HEADER, "identity_proxies": PROXY}
    return settings.model_copy(update=changes | {"trusted_proxies": PROXY})


@pytest.fixture
def behind_app(make_app: AppMaker, behind_settings: Settings) -> FastAPI:
    return with_people(make_app(behind_settings))


def with_people(app: FastAPI) -> FastAPI:
    with state_of(app).database.write() as session:
        for name, role in (PEOPLE | {"Zoë": Role.MEMBER}).items():
            people.add_user(session, name, role)
    return app


def status(app: FastAPI, name: str | None, peer: str = PROXY, **headers: str) -> int:
    client = TestClient(app, base_url="http://localhost", client=(peer, 1), follow_redirects=False)
    of_name = [] if name is None else [(HEADER.encode(), name.encode())]
    others = [(key.replace("_", "-").encode(), one.encode()) for key, one in headers.items()]
    given = [*of_name, *others]
    return client.get("/api/v1/sessions", headers=given).status_code


def test_the_name_must_exist_and_the_role_is_ours(behind_app: FastAPI) -> None:
    found = {name: status(behind_app, name) for name in ("Eva", "eva", "Ana", "Zoë", "Nobody")}
    assert found == {"Eva": 200, "eva": 200, "Ana": 403, "Zoë": 403, "Nobody": 403}
    assert status(behind_app, None) == status(behind_app, "") == 401
    assert status(behind_app, "E" * 1_000) == 403
    assert status(behind_app, "Eva", remote_user="Ana") == 403  # twice
    with state_of(behind_app).database.write() as session:
        assert session.get_one(User, find_person(behind_app, "Eva").key).seen_at is not None
        session.get_one(User, find_person(behind_app, "Eva").key).disabled_at = utcnow()
    assert status(behind_app, "Eva") == 403


@pytest.mark.parametrize("peer", ["192.0.2.8", "127.0.0.1", "::1", "testclient"])
def test_the_header_is_ignored_from_elsewhere(behind_app: FastAPI, peer: str) -> None:
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(said))
    for _ in range(3):
        assert status(behind_app, "Eva", peer) == 401
        assert status(behind_app, "Eva", peer, x_forwarded_for=PROXY) == 401
    assert said.getvalue().count("identity header ignored") == 1


def test_a_forwarded_address_does_not_hide_the_proxy(behind_app: FastAPI) -> None:
    assert status(behind_app, "Eva", x_forwarded_for="203.0.113.9") == 200
    assert status(behind_app, "Eva", "::ffff:" + PROXY) == 200


def test_requests_of_other_sites_are_refused_as_ever(behind_app: FastAPI) -> None:
    client = TestClient(behind_app, base_url="http://localhost", client=(PROXY, 1))
    body, given = {"name": "Chalk"}, {HEADER: "Ana"}
    own = client.post("/api/v1/datasets", json=body, headers=given)
    assert own.status_code == 201
    cross = given | {"sec-fetch-site": "cross-site"}
    assert client.post("/api/v1/datasets", json=body, headers=cross).status_code == 403


def test_without_the_setting_no_header_counts(make_app: AppMaker, settings: Settings) -> None:
    changes = {"accounts": True, "identity_proxies": PROXY}
    app = with_people(make_app(settings.model_copy(update=changes)))
    assert status(app, "Eva") == 401


@pytest.mark.parametrize(
    ("changes", "missing"),
    [({"accounts": False}, "ACCOUNTS=on"), ({"identity_proxies": ""}, "IDENTITY_PROXIES")],
)
def test_a_header_that_anybody_could_send_is_refused_at_the_start(
    behind_settings: Settings, changes: dict[str, object], missing: str
) -> None:
    check_exposure(behind_settings)
    with pytest.raises(AddressError, match=missing):
        check_exposure(behind_settings.model_copy(update=changes))


class Door(BaseHTTPRequestHandler):
    """A service for forward authentication: a cookie `who` names the person."""

    def do_GET(self) -> None:
        name = (self.headers.get("cookie") or "").partition("who=")[2]
        self.send_response(200 if name else 401)
        if name and name != "nameless":
            self.send_header(HEADER, name)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def door() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_example_for_forward_authentication_works_as_it_is_written(
    make_app: AppMaker, behind_settings: Settings, door: int, tmp_path: Path
) -> None:
    if shutil.which("caddy") is None:
        skip_unless_ci("no caddy on this machine")
    changes = {"identity_proxies": "127.0.0.1", "allowed_hosts": f"{NAME},localhost"}
    changed = behind_settings.model_copy(update=changes)
    proxy = Proxy(free_port(), None)
    with serve(with_people(make_app(changed)), changed) as live:
        text = example("caddyfile").replace("127.0.0.1:9091", f"127.0.0.1:{door}")
        command = run_caddy(tmp_path, live.url.removeprefix("http://"), proxy, text)
        home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
        with (tmp_path / "log").open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=home)
            try:
                wait_for(proxy.port, process, tmp_path / "log")
                with proxy.client() as browser:
                    found = {
                        who: browser.get(
                            "/api/v1/sessions", headers={"cookie": f"who={who}", HEADER: "Eva"}
                        ).status_code
                        for who in ("Eva", "Ana", "nameless", "")
                    }
            finally:
                process.terminate()
                process.wait(timeout=20)
    # Caddy passes on no name for the third, or its own word for none; never that of the browser
    assert found.pop("nameless") in (401, 403)
    assert found == {"Eva": 200, "Ana": 403, "": 401}
