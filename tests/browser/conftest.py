"""A running app and a real browser: `live` (address, settings, database) and `page`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any

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
"""Messages of the browser and htmx about a refusal or a lost connection that a test is about."""

FEW_OPERATIONS = (
    *("createRun", "cancelRun", "deleteVersion", "downloadAdapter", "importAdapter"),
    *("uploadImages", "healthz"),
)
SCHEMA = re.compile(r'"#/components/schemas/([^"]+)"')

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
def few_operations(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app documents a part of its REST API: the viewer takes seconds for all schemas."""
    few = documented_part(app.openapi(), FEW_OPERATIONS)
    monkeypatch.setattr(app, "openapi", lambda: few)


def documented_part(document: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """An OpenAPI document with these operations alone, and with the schemas that they need."""
    paths = {
        path: operations
        for path, operations in document["paths"].items()
        if any(operation["operationId"] in names for operation in operations.values())
    }
    schemas, found = document["components"]["schemas"], dict[str, Any]()
    needed = {"paths": paths, "responses": document["components"]["responses"]}
    while needed:
        names_of_schemas = set(SCHEMA.findall(json.dumps(needed))) - found.keys()
        needed = {name: schemas[name] for name in names_of_schemas}
        found |= needed
    components = document["components"] | {"schemas": found}
    return document | {"paths": paths, "components": components}


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
