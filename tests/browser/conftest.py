"""A running app and a real browser: `live` (address, settings, database) and `page`."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from app.registry.config import Settings
from tests.chromium import SharedBrowser
from tests.conftest import require_chromium
from tests.live_server import Live, serve

__all__ = ["Live"]

WAIT_MS = 60_000  # the longest wait for a condition; what is there already goes on at once
PROVOKED = re.compile(
    "^Failed to load resource|^Response Status Error Code|^htmx:(sendError|afterRequest)"
)
"""What the browser and htmx say of a refusal or a lost connection that a test is about."""

expect.set_options(timeout=WAIT_MS)

shared = SharedBrowser()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """End the browser after the last test of this folder, or before one of another folder."""
    try:
        return (yield)
    finally:
        if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
            shared.close()


def pytest_sessionfinish() -> None:
    """End the browser where the session ends early."""
    shared.close()


@pytest.fixture(scope="module")
def chromium() -> Browser:
    """This machine's browser, shared by all files of this folder that a process runs."""
    require_chromium()
    return shared.get()


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[Live]:
    """The whole app on a free port, without workers; its registry knows only the ready base."""
    with serve(app, settings) as running:
        yield running


@pytest.fixture
def context(chromium: Browser, live: Live) -> Iterator[BrowserContext]:
    """A browser profile of its own; whatever the pages log as an error fails the test."""
    context = chromium.new_context(
        base_url=live.url,
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not PROVOKED.search(message.text):
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
