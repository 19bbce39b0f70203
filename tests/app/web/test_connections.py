"""Slow clients and many of them, on real sockets: others are served, and the log stays short."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.registry.config import Settings
from app.web import server
from app.web.server import ConnectionWatch, Limits
from tests.live_server import END_SECONDS, Live, serve

HALF = b"GET /api/v1/datasets HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_A_BODY = (
    b"POST /datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nname=Ink"
)
MANY = 240
SHORT = Limits(of_address=MANY * 5 // 8, head_seconds=1, idle_seconds=0.5)


@contextlib.contextmanager
def many(live: Live, request: bytes, count: int) -> Iterator[list[socket.socket]]:
    """This many connections that have sent the same bytes and then wait."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(live.connect())
            connection.sendall(request)
            connections.append(connection)
        yield connections


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow connections are looked for more often than once a second."""
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.1)


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[Live]:
    with serve(app, settings, SHORT) as running:
        yield running


def test_hundreds_of_half_sent_requests_stop_nobody_and_are_closed(live: Live) -> None:
    with capture_logs() as events, many(live, HALF, MANY) as connections:
        assert httpx.get(f"{live.url}/api/v1/datasets", timeout=END_SECONDS).status_code == 200
        assert all(is_closed(connection) for connection in connections)
    assert len([event for event in events if event["event"] == "connections"]) <= 2


def test_over_the_limit_the_oldest_that_waits_is_closed(app: FastAPI, settings: Settings) -> None:
    limits = Limits(connections=20, of_address=20)
    with serve(app, settings, limits) as live, many(live, HALF, 30) as connections:
        assert all(is_closed(connection) for connection in connections[:10])
        assert httpx.get(f"{live.url}/healthz", timeout=END_SECONDS).status_code == 200
        connections[-1].sendall(b"x\r\n\r\n")
        assert connections[-1].recv(12) == b"HTTP/1.1 200"


def test_requests_at_work_are_never_closed_for_others(app: FastAPI, settings: Settings) -> None:
    limits = Limits(connections=10, of_address=5)
    with serve(app, settings, limits) as live, many(live, HALF_A_BODY, 5) as connections:
        while len(live.server.server_state.tasks) < 5:
            time.sleep(0.01)
        with live.connect() as refused:
            assert is_closed(refused)
        connections[0].sendall(b"&trigger_word=".ljust(992, b"x"))
        assert connections[0].recv(8) == b"HTTP/1.1"


def test_a_body_that_stops_is_given_up(live: Live) -> None:
    with many(live, HALF_A_BODY, 3) as connections:
        assert all(is_closed(connection) for connection in connections)


def test_an_answer_that_nobody_reads_is_given_up(live: Live) -> None:
    blob = live.state.store.put_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000_000))
    request = f"GET /media/{blob.sha256} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with live.connect() as connection:
        connection.sendall(request)
        while not live.server.server_state.tasks:
            time.sleep(0.01)
        while live.server.server_state.tasks:
            time.sleep(0.05)


def test_what_is_no_http_is_counted_and_not_logged_each_time(live: Live) -> None:
    with capture_logs() as events, many(live, b"\x16\x03\x01 not http\r\n\r\n", 50) as connections:
        answers = [connection.recv(2_000) for connection in connections]
    assert all(answer.startswith(b"HTTP/1.1 400") for answer in answers)
    assert all(b"application/problem+json" in answer for answer in answers)
    assert len(events) <= 2


class FullSocket(socket.socket):
    """A socket that accepts nothing, as this process has no file left."""

    def accept(self) -> tuple[socket.socket, object]:
        """Refuse."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_server_that_stops_without_a_file_left_logs_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.02)
    watch = ConnectionWatch(SHORT)
    refused = asyncio.Event()
    monkeypatch.setattr(watch, "count", lambda event: refused.set())

    async def stop_between_two_attempts() -> None:
        watch.start(asyncio.get_running_loop())
        listening = FullSocket()
        listening.bind(("127.0.0.1", 0))
        stopping = await asyncio.start_server(lambda reader, writer: None, sock=listening)
        with socket.create_connection(listening.getsockname()):
            await refused.wait()
            stopping.close()
        await asyncio.sleep(0.1)

    asyncio.run(stop_between_two_attempts())
    assert caplog.messages == []
