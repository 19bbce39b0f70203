"""A client that goes away in the middle of a request, on a real socket: no error in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.registry.config import Settings
from tests import fake_workers
from tests.images import make_png
from tests.live_server import END_SECONDS, Live, serve

HALF_A_FORM = b"name=Chalk&trigger_word=ch"
HALF_A_PART = b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na cas'


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[Live]:
    with serve(app, settings) as running:
        yield running


def leave(live: Live, request: bytes, *, after_bytes: int = 0) -> list[str]:
    """Send this, close the connection, and give what was logged until the server is done."""
    with capture_logs() as events:
        with live.connect() as connection:
            connection.sendall(request)
            if after_bytes:
                connection.recv(after_bytes)
            else:
                wait_until(live, is_busy=True)
        wait_until(live, is_busy=False)
    return [str(event) for event in events]


def wait_until(live: Live, *, is_busy: bool) -> None:
    deadline = time.monotonic() + END_SECONDS
    while bool(live.server.server_state.tasks) is not is_busy:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "content_type", "half"),
    [
        ("/train/new/plan", "application/x-www-form-urlencoded", HALF_A_FORM),
        ("/play", "multipart/form-data; boundary=edge", HALF_A_PART),
        ("/datasets", "application/x-www-form-urlencoded", HALF_A_FORM),
        ("/api/v1/datasets", "application/json", HALF_A_FORM),
    ],
)
def test_half_a_body_is_no_error(
    live: Live, caplog: pytest.LogCaptureFixture, path: str, content_type: str, half: bytes
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: 5000\r\n\r\n".encode() + half
    assert leave(live, request) == []
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_half_a_download_is_no_error(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    sha256 = fake_workers.blob(live.state, make_png(1) + bytes(30_000_000))
    request = f"GET /media/{sha256} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    assert leave(live, request, after_bytes=1000) == []
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []
