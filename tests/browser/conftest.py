"""A running app and a real browser: `live` (address, settings, database) and `page`."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from app.registry.config import Settings
from app.registry.datasets.images import ImageDecoder
from app.registry.db import Database
from app.registry.state import AppState

WAIT_MS = 60_000  # the longest wait for a condition; what is there already goes on at once
expect.set_options(timeout=WAIT_MS)


@dataclass(frozen=True)
class Live:
    """An app that listens on this machine, and what it writes to."""

    url: str
    settings: Settings
    state: AppState

    @property
    def database(self) -> Database:
        """The registry of the running app."""
        return self.state.database


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[Live]:
    """The whole app on a free port, without workers; its registry knows only the ready base."""
    # the app closes its decoder when it ends, so that it cannot be the one the tests share
    state = dataclasses.replace(app.state.brushwork, decoder=ImageDecoder())
    app.state.brushwork = state
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    assert server.started, "the app did not start"
    yield Live(f"http://127.0.0.1:{listener.getsockname()[1]}", settings, state)
    server.should_exit = True
    thread.join(timeout=WAIT_MS / 1000)
    listener.close()
    assert not thread.is_alive(), "the app did not end"


@pytest.fixture
def context(chromium: Browser, live: Live) -> Iterator[BrowserContext]:
    """A browser profile of its own; script errors and blocked content fail the test."""
    context = chromium.new_context(
        base_url=live.url,
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            complaints.append(message.text)

    context.on("console", listen)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert not complaints


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab; addresses are relative to the app: `page.goto("/datasets")`."""
    return context.new_page()
