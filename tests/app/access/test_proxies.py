"""Headers of a proxy count only if it is trusted, and the examples of the documents work."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.registry.config import Settings
from app.web.access.login import Login
from tests.app.access.conftest import PASSWORD
from tests.conftest import AppMaker, skip_unless_ci
from tests.docs.pages import DOCS, FENCE
from tests.live_server import Live, serve

NAME = "brushwork.example"
ELSEWHERE = "127.0.0.5"  # on Linux the whole network 127.0.0.0/8 is this machine


def logged_in(app: FastAPI, address: str, headers: dict[str, str]) -> tuple[str, str]:
    """The Set-Cookie of a login and the address that it is written down with."""
    client = TestClient(app, base_url="http://localhost", client=(address, 1))
    answer = client.post(
        "/login", data={"password": PASSWORD}, headers=headers, follow_redirects=False
    )
    (row,) = client.get("/api/v1/sessions", auth=("me", PASSWORD)).json()
    return answer.headers["set-cookie"], row["address"]


@pytest.fixture
def app_behind(make_app: AppMaker, settings: Settings) -> Callable[[str], FastAPI]:
    """A function: an app with PASSWORD that trusts these proxies."""

    def make(trusted: str) -> FastAPI:
        app = make_app(settings.model_copy(update={"trusted_proxies": trusted}))
        app.state.login = Login(password=PASSWORD)
        return app

    return make


FORWARDED = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}


@pytest.mark.parametrize(
    ("trusted", "proxy", "address", "is_secure"),
    [
        ("127.0.0.1,::1", "127.0.0.1", "203.0.113.9", True),
        ("127.0.0.1,::1", "192.0.2.1", "192.0.2.1", False),
        ("192.0.2.0/24", "192.0.2.1", "203.0.113.9", True),
        ("", "127.0.0.1", "127.0.0.1", False),
    ],
)
def test_only_trusted_proxies_are_believed(
    app_behind: Callable[[str], FastAPI], trusted: str, proxy: str, address: str, is_secure: bool
) -> None:
    cookie, written = logged_in(app_behind(trusted), proxy, FORWARDED)
    assert written == address
    assert cookie.startswith("__Host-") is is_secure
    assert ("Secure" in cookie) is is_secure


def test_an_address_that_the_client_made_up_is_not_taken(
    app_behind: Callable[[str], FastAPI],
) -> None:
    made_up = FORWARDED | {"x-forwarded-for": "10.9.9.9, 203.0.113.9"}  # the proxy adds the last
    assert logged_in(app_behind("127.0.0.1"), "127.0.0.1", made_up)[1] == "203.0.113.9"


def test_a_proxy_that_is_not_trusted_is_named_once(app_behind: Callable[[str], FastAPI]) -> None:
    app = app_behind("127.0.0.1")
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(said))
    for address in ("127.0.0.1", "172.18.0.1", "172.18.0.1"):
        TestClient(app, base_url="http://localhost", client=(address, 1)).get(
            "/healthz", headers=FORWARDED
        )
    assert said.getvalue().count("BRUSHWORK_TRUSTED_PROXIES") == 1
    assert "172.18.0.1" in said.getvalue()


# -- the examples of docs/deployment.md ----------------------------------------------------------


def unverified_tls() -> ssl.SSLContext:
    """TLS that takes any certificate: that of a test is its own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Proxy:
    """A running proxy with TLS before a running app."""

    port: int
    plain_port: int | None

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """A client at an address of this machine."""
        return httpx.Client(
            base_url=f"https://{NAME}:{self.port}",
            transport=ToThisMachine(local_address=address, verify=unverified_tls()),
            timeout=30,
        )


class ToThisMachine(httpx.HTTPTransport):
    """Connects to 127.0.0.1, whatever the name in the address."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = NAME
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def example(language: str) -> str:
    """The block of this language in the documents."""
    blocks = FENCE.findall((DOCS / "deployment.md").read_text())
    (found,) = [text for written, text in blocks if written == language]
    return str(found)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with these patterns replaced; each of them has to be there."""
    for pattern, new in changes:
        text, count = re.subn(pattern, lambda _, new=new: new, text)  # type: ignore[misc]
        assert count, f"{pattern} is not in the example"
    return text


def nginx_command(folder: Path, upstream: str, proxy: Proxy) -> list[str]:
    """Write the example with the ports and certificates of the test into a whole configuration."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", f"/CN={NAME}", "-days", "2", "-keyout", str(folder / "key.pem"),
         "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    servers = replaced(
        example("nginx"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{proxy.port} ssl;"),
        (r"listen 80;", f"listen 127.0.0.1:{proxy.plain_port};"),
        (r"ssl_certificate .*;", f"ssl_certificate {folder}/cert.pem;"),
        (r"ssl_certificate_key .*;", f"ssl_certificate_key {folder}/key.pem;"),
        (r"127\.0\.0\.1:8188", upstream),
    )
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = (
        f"daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{servers}}}\n"
    )
    (folder / "nginx.conf").write_text(whole)
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, upstream: str, proxy: Proxy) -> list[str]:
    """Write the example with the ports of the test; certificates are Caddy's own."""
    return run_caddy(folder, upstream, proxy, example("caddy"))


def run_caddy(folder: Path, upstream: str, proxy: Proxy, text: str) -> list[str]:
    sites = replaced(
        text,
        (re.escape(NAME) + r" \{", f"{NAME}:{proxy.port} {{"),
        (r"127\.0\.0\.1:8188", upstream),
    )
    settings = "admin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\n"
    (folder / "Caddyfile").write_text(f"{{\n{settings}}}\n{sites}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


COMMANDS = {"nginx": nginx_command, "caddy": caddy_command}


@pytest.fixture
def live(settings: Settings, make_app: AppMaker) -> Iterator[Live]:
    """An app with a password that answers to the name of the examples."""
    named = {"allowed_hosts": f"{NAME},localhost", "password": SecretStr(PASSWORD)}
    changed = settings.model_copy(update=named)
    with serve(make_app(changed), changed) as found:
        yield found


@pytest.fixture(params=COMMANDS)
def proxy(request: pytest.FixtureRequest, live: Live, tmp_path: Path) -> Iterator[Proxy]:
    """The example of the documents, running before the app."""
    program: str = request.param
    if shutil.which(program) is None:
        skip_unless_ci(f"no {program} on this machine")
    found = Proxy(free_port(), free_port() if program == "nginx" else None)
    command = COMMANDS[program](tmp_path, live.url.removeprefix("http://"), found)
    home = {
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    with (tmp_path / "log").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=home)
        try:
            wait_for(found.port, process, tmp_path / "log")
            yield found
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a TLS handshake succeeds: Caddy listens before it has a certificate."""
    unverified = unverified_tls()
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as trial,
                unverified.wrap_socket(trial, server_hostname=NAME),
            ):
                return
        except OSError:  # refused, or no certificate yet
            time.sleep(0.05)
    pytest.fail(log.read_text())


def test_the_examples_for_a_proxy_with_tls_work_as_they_are_written(proxy: Proxy) -> None:
    page = {"accept": "text/html", "x-forwarded-for": "10.9.9.9", "x-forwarded-proto": "http"}
    with proxy.client(ELSEWHERE) as browser:
        asked = browser.get("/runs", headers=page)
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/runs")
        assert "max-age" in asked.headers["strict-transport-security"]
        own = {"origin": f"https://{NAME}:{proxy.port}"}
        answer = browser.post("/login", data={"password": PASSWORD}, headers=page | own)
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie
        browser.headers["cookie"] = cookie.partition(";")[0]
        (row,) = browser.get("/api/v1/sessions").json()
        assert row["address"] == ELSEWHERE  # not what the browser made up
        large = browser.post("/api/v1/datasets/1/images", files={"files": bytes(3_000_000)})
        assert large.status_code == 404  # it got through to the app
    if proxy.plain_port is not None:
        plain = httpx.get(f"http://127.0.0.1:{proxy.plain_port}/runs", headers={"host": NAME})
        assert plain.status_code == 301
        assert plain.headers["location"] == f"https://{NAME}/runs"
