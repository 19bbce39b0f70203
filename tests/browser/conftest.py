"""A running app and a real browser: `live` (address, settings, database) and `page`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from app.registry.config import Settings
from app.registry.state import make_state
from tests.chromium import SharedBrowser
from tests.conftest import make_settings, require_chromium
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


@pytest.fixture(scope="module")
def running_app(
    routed_app: FastAPI, ready_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """The whole app on a free port for the tests of a file, without workers."""
    settings = make_settings(tmp_path_factory.mktemp("server"), ready_template)
    routed_app.state.brushwork = make_state(settings)
    with serve(routed_app, settings) as running:
        yield running


@pytest.fixture
def live(running_app: Live, app: FastAPI, settings: Settings) -> Iterator[Live]:
    """The running app with a registry of this test, which knows only the ready base."""
    yield dataclasses.replace(running_app, settings=settings, state=app.state.brushwork)
    running_app.wait_until_idle()  # also what no page waits for reads the registry


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
