"""The app on a real socket, in a thread of the test."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from app.registry.config import Settings
from app.registry.db import Database
from app.registry.images.decoder import ImageDecoder
from app.registry.state import AppState
from app.supervisor.address import listen
from app.web.server import Limits, make_server

END_SECONDS = 60.0


@dataclass(frozen=True)
class Live:
    """An app that listens on this machine, and what it writes to."""

    url: str
    settings: Settings
    state: AppState
    server: uvicorn.Server

    @property
    def database(self) -> Database:
        """The registry of the running app."""
        return self.state.database

    def connect(self) -> socket.socket:
        """A connection to the app, for requests that no client would send."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=END_SECONDS)

    def wait_until_idle(self) -> None:
        """Wait until everything that was asked before is answered."""
        with self.connect() as last:  # connections are taken in the order in which they came
            last.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            while last.recv(65_536):
                pass
        deadline = time.monotonic() + END_SECONDS
        while self.server.server_state.tasks:
            assert time.monotonic() < deadline, "a request is still being answered"
            time.sleep(0.005)


@contextlib.contextmanager
def serve(app: FastAPI, settings: Settings, limits: Limits | None = None) -> Iterator[Live]:
    """The whole app on a free port, without workers; its registry knows only the ready base."""
    # the app closes its decoder when it ends, so that it cannot be the one the tests share
    state = dataclasses.replace(app.state.brushwork, decoder=ImageDecoder())
    app.state.brushwork = state
    listener = listen("127.0.0.1", 0, explicit=True)
    server = make_server(app, limits=limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    assert server.started, "the app did not start"
    yield Live(f"http://127.0.0.1:{listener.getsockname()[1]}", settings, state, server)
    server.should_exit = True
    thread.join(timeout=END_SECONDS)
    listener.close()
    assert not thread.is_alive(), "the app did not end"
