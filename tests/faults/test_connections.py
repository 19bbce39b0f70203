"""More half-sent requests than the server may have files open, before the password is asked."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.registry.config import Settings
from app.web.server import raise_file_limit
from tests.faults.web_server import web_server

HALF = b"GET /datasets HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
CONNECTIONS = 1_100
PASSWORD = "a-long-password-of-the-tests"
WATCHDOG_SECONDS = 60


@pytest.mark.parametrize("files", [1_024, 200])
def test_a_server_with_few_files_outlives_1100_half_sent_requests(
    settings: Settings, files: int
) -> None:
    if raise_file_limit() < CONNECTIONS + 100:
        pytest.skip("this machine allows too few open files")
    log = settings.data_dir / "web.log"
    with web_server(settings.data_dir, files=files, password=PASSWORD) as url:
        address = urlsplit(url)
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                with contextlib.suppress(ConnectionError):
                    one = stack.enter_context(
                        socket.create_connection((address.hostname, address.port), timeout=30)
                    )
                    one.sendall(HALF)
            assert httpx.get(f"{url}/healthz", timeout=WATCHDOG_SECONDS).status_code == 200
            asked = httpx.get(f"{url}/datasets", auth=("me", PASSWORD), timeout=WATCHDOG_SECONDS)
            assert asked.status_code == 200
        assert httpx.get(f"{url}/healthz", timeout=WATCHDOG_SECONDS).status_code == 200
    assert len(_lines(log)) < 40
    assert "Traceback" not in log.read_text()


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines()
