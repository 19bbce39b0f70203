"""The HTTP server: uvicorn with limits for slow and for many connections.

The limits hold before a request is read, and so before the password is asked. What they refuse is
summed up in one line of the log at most every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.web.problems import problem_response, status_error

FILES_WANTED = 8_192  # open files and connections; the soft limit is raised to it where allowed
FILES_RESERVED = 300  # for the database, blobs, uploads and libraries
BACKLOG = 100  # connections that are accepted in one go, before any of them is counted
HEAD_BYTES = 65_536
SHUTDOWN_SECONDS = 5
SWEEP_SECONDS = 1.0
SUMMARY_SECONDS = 10.0
MOST_CONNECTIONS = 1_000
MAX_CONNECTIONS_PER_ADDRESS = 500
NOISE = ("Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket")
NO_MORE_FILES = "socket.accept() out of system resource"
NEXT_ATTEMPT = "_start_serving"  # of asyncio to accept, a second later, even after a stop

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """Limits of connections: their number, and seconds without progress until one is closed."""

    connections: int = MOST_CONNECTIONS
    of_address: int = MAX_CONNECTIONS_PER_ADDRESS
    head_seconds: float = 20.0  # from the connection, or the first byte, to the end of the head
    idle_seconds: float = 30.0  # between two pieces of a body, or of an answer that is not read
    slow_seconds: float = 60.0  # after which a body must have come in at `bytes_per_second`
    bytes_per_second: int = 500


def make_server(
    app: ASGIApp, *, log_level: str = "warning", limits: Limits | None = None
) -> Server:
    """A server for this app; `limits` defaults to those that the limit of open files allows."""
    files = raise_file_limit()
    limits = limits or Limits(connections=max(50, min(MOST_CONNECTIONS, files - FILES_RESERVED)))
    watch = ConnectionWatch(limits)
    config = uvicorn.Config(
        app,
        http=type("WatchedProtocol", (LimitedProtocol,), {"watch": watch}),
        log_level=log_level,
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the app reads them itself, from BRUSHWORK_TRUSTED_PROXIES
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config, watch)


def raise_file_limit() -> int:
    """Raise the limit of open files as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return FILES_WANTED if soft == resource.RLIM_INFINITY else soft


class Server(uvicorn.Server):
    """A uvicorn server that watches its connections."""

    def __init__(self, config: uvicorn.Config, watch: ConnectionWatch) -> None:
        super().__init__(config)
        self._watch = watch

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen and to watch."""
        self._watch.start(asyncio.get_running_loop())
        await super().startup(sockets=sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, with a last summary."""
        await super().shutdown(sockets=sockets)
        self._watch.stop()


class ConnectionWatch:
    """All open connections of a server: counts them, closes slow ones, sums up in the log."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[LimitedProtocol, str] = {}  # with their addresses, the oldest first
        self._by_address: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._summed_up = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._noise = _Noise(self)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the connections of this loop."""
        loop.set_exception_handler(self._on_loop_error)
        logging.getLogger("uvicorn.error").addFilter(self._noise)
        self._tick(loop)

    def stop(self) -> None:
        """Stop watching."""
        logging.getLogger("uvicorn.error").removeFilter(self._noise)
        if self._timer is not None:
            self._timer.cancel()
        self._sum_up()

    def count(self, event: str) -> None:
        """Count something for the next line of the log."""
        self._events[event] += 1

    def add(self, connection: LimitedProtocol, address: str) -> bool:
        """Take a new connection; False if it is refused, as too many are at work.

        Over a limit the oldest connection that has no whole request is closed for it: half-sent
        requests and idle clients never keep others out.
        """
        is_full = len(self._open) >= self.limits.connections
        if is_full or self._by_address[address] >= self.limits.of_address:
            oldest = next(
                (
                    one
                    for one, of in self._open.items()
                    if one.is_waiting and (is_full or of == address)
                ),
                None,
            )
            if oldest is None:
                self.count("refused")
                return False
            self.count("closed_for_others")
            self.remove(oldest)
            oldest.transport.abort()
        self._open[connection] = address
        self._by_address[address] += 1
        return True

    def remove(self, connection: LimitedProtocol) -> None:
        """Forget a connection that was closed."""
        address = self._open.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for connection in [one for one in self._open if one.is_stuck(now)]:
            self.count("closed_as_slow")
            self.remove(connection)
            connection.transport.abort()
        if now - self._summed_up > SUMMARY_SECONDS:
            self._sum_up()
        self._timer = loop.call_later(SWEEP_SECONDS, self._tick, loop)

    def _sum_up(self) -> None:
        if self._events:
            self._summed_up = time.monotonic()
            log.warning("connections", open=len(self._open), **self._events)
            self._events.clear()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count connections for which no file is left: asyncio logs each attempt with a trace.

        Its next attempts are a ValueError each where the socket was closed meanwhile: not logged.
        """
        message = context["message"]
        if message == NO_MORE_FILES:
            self.count("no_file_left")
        elif NEXT_ATTEMPT not in message or not isinstance(context.get("exception"), ValueError):
            loop.default_exception_handler(context)


class _Noise(logging.Filter):
    """Counts uvicorn's warnings about what clients send, instead of a line for each."""

    def __init__(self, watch: ConnectionWatch) -> None:
        super().__init__()
        self._watch = watch

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a warning that is counted."""
        is_noise = record.getMessage().startswith(NOISE)
        if is_noise:
            self._watch.count("invalid")
        return not is_noise


class LimitedProtocol(H11Protocol):
    """One connection, which `watch` closes when it makes no progress."""

    watch: ConnectionWatch

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it at once if there are too many."""
        super().connection_made(transport)
        self._since = self._began = time.monotonic()  # of the last progress, and of the body
        self._received = 0  # bytes of the body
        self._has_begun = True  # a request is expected at once
        address = self.client[0] if self.client else ""
        if not self.watch.add(self, address):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.watch.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        now = time.monotonic()
        was_waiting = self.is_waiting
        if not was_waiting:
            self._since = now
            self._received += len(data)
        elif not self._has_begun:  # the first bytes of the next request
            self._has_begun, self._since = True, now
        super().data_received(data)
        if was_waiting and not self.is_waiting:  # the head is complete
            self._since = self._began = now
            self._received = 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, and close the connection."""
        error = status_error(400, f"{msg} Its head may have at most {HEAD_BYTES:,} bytes.")
        answer = problem_response(error)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn's own keep-alive timeout holds until it begins."""
        self._has_begun = False
        super().on_response_complete()

    @property
    def is_waiting(self) -> bool:
        """True while no request is at work: before the first one, or between two."""
        return self.cycle is None or self.cycle.response_complete

    def is_stuck(self, now: float) -> bool:
        """True if the client takes too long to send its request or to read the answer."""
        limits = self.watch.limits
        if self.is_waiting:
            return self._has_begun and now - self._since > limits.head_seconds
        if self.flow.write_paused:
            return now - self._since > limits.idle_seconds
        if not self.cycle.more_body or self.flow.read_paused:  # the server is at work
            self._since = self._began = now
            self._received = 0
            return False
        seconds = now - self._began
        is_slow = self._received < limits.bytes_per_second * seconds
        return now - self._since > limits.idle_seconds or (
            seconds > limits.slow_seconds and is_slow
        )

    def resume_writing(self) -> None:
        """Note that the client has read something."""
        self._since = time.monotonic()
        super().resume_writing()
