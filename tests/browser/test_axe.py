"""axe-core finds nothing in any state of any page, and nothing is wider than its window."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator, Sequence

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from playwright.sync_api import Page

from app.registry.db import Database, make_engine
from app.web.access.login import Login
from tests.browser import axe, page_states
from tests.browser.acts import PageState
from tests.browser.axe import Survey
from tests.browser.conftest import Live
from tests.browser.filled_registry import Ids, fill

FEWEST = 120
NO_PAGES = {
    "/adapters/{slug}/pictures",
    "/datasets/{slug}/checks/brief",
    "/datasets/{slug}/checks/panel",
    "/datasets/{slug}/export",
    "/datasets/{slug}/captions/auto/previews/{job_id}",
    "/datasets/{slug}/captions/auto/results",
    "/datasets/{slug}/filters",
    "/datasets/{slug}/images/{image_id}/history",
    "/datasets/{slug}/statistics",
    "/datasets/{slug}/tags",
    "/datasets/{slug}/tiles",
    "/datasets/{slug}/versions/{version_id}/export",
    "/example/{style}/{name}.webp",
    "/grids/{grid_id}/cells/{place}",
    "/grids/{grid_id}/live",
    "/grids/{grid_id}/sheet.png",
    "/healthz",
    "/home/runs",
    "/imports/{job_id}",
    "/media/{sha256}",
    "/media/{sha256}/{size}",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/renders/compare-chosen",
    "/renders/zip",
    "/renders/{render_id}/checkpoints",
    "/renders/{render_id}/live",
    "/renders/{render_id}/strip",
    "/running",
    "/runs/{run_id}/live",
    "/tool-jobs/{job_id}",
    "/train/new/datasets",
    "/train/new/paste",
    "/train/new/preset",
}
"""Addresses of files, of parts that a page loads, and two that lead elsewhere."""


def windows_of(state: PageState) -> Sequence[axe.Window]:
    """Where a state is checked; colors of the system, where nothing was done to the page."""
    if state.repeats:
        return (axe.KNOWN_COLORS, axe.NARROW)
    forced = () if state.act or state.part else (axe.FORCED,)
    return (axe.LIGHT, axe.DARK, *forced, axe.MIDDLE, axe.NARROW)


def visit(survey: Survey, states: Sequence[PageState], ids: Ids) -> None:
    """Load each state once and check it; nothing may be found."""
    for state in states:
        axe.show(survey.page, axe.LIGHT)
        survey.page.goto(state.address.format(**ids))
        if state.act:
            state.act(survey.page)
        survey.check(state.name, windows_of(state), state.part)
    assert survey.count
    assert not survey.findings, "\n".join(survey.findings)


@contextlib.contextmanager
def locked(app: FastAPI, live: Live) -> Iterator[None]:
    """The running app asks for a password, and a program has a session."""
    before = app.state.login
    app.state.login = Login(password=page_states.PASSWORD)
    answer = httpx.post(f"{live.url}/login", data={"password": page_states.PASSWORD})
    assert answer.status_code == 303
    yield
    app.state.login = before


@contextlib.contextmanager
def away(app: FastAPI) -> Iterator[None]:
    """The running app has a database that cannot be reached."""
    before = app.state.brushwork
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://nobody@127.0.0.1:{unused.getsockname()[1]}/nothing"
        database = Database(make_engine(url, patience=1))
        app.state.brushwork = dataclasses.replace(before, database=database)
        yield
        app.state.brushwork = before
        database.dispose()


@pytest.fixture
def survey(page: Page) -> Survey:
    """A survey of the pages of `live` that has found nothing yet."""
    axe.prepare(page)
    return Survey(page)


def test_nothing_is_found_in_an_empty_registry(survey: Survey) -> None:
    visit(survey, page_states.EMPTY, {})


@pytest.mark.parametrize("group", page_states.FILLED)
def test_nothing_is_found_in_a_filled_registry(survey: Survey, live: Live, group: str) -> None:
    visit(survey, page_states.FILLED[group], fill(live))


def test_nothing_is_found_where_a_password_is_asked_for(
    survey: Survey, app: FastAPI, live: Live
) -> None:
    with locked(app, live):
        visit(survey, page_states.LOCKED, {})


def test_nothing_is_found_while_the_database_is_away(survey: Survey, app: FastAPI) -> None:
    with away(app):
        visit(survey, page_states.AWAY, {})


def test_every_page_has_a_state(app: FastAPI) -> None:
    groups = (page_states.EMPTY, *page_states.FILLED.values(), page_states.LOCKED, page_states.AWAY)
    states = [state for group in groups for state in group]
    assert sum(len(windows_of(state)) for state in states) >= FEWEST
    visited = set()
    contexts = [
        context
        for context in iter_route_contexts(list(app.routes))
        if "GET" in (context.methods or ()) and not str(context.path).startswith("/api/")
    ]
    for state in states:
        path = state.address.partition("?")[0].replace("{", "").replace("}", "")
        for name in ("trained", "running", "queued"):
            path = path.replace(name, "1")
        visited |= {str(context.path) for context in contexts if context.path_regex.match(path)}
    assert {str(context.path) for context in contexts} - visited == NO_PAGES


BAD = """
<!doctype html><html lang="en" style="color-scheme: light dark"><title>Bad</title>
<style>
  p { background: light-dark(white, black); color: light-dark(black, #333) }
  @media (width < 700px) { button { width: 9px; height: 9px; padding: 0; font-size: 1px } }
</style>
<main><h1>Bad</h1><img src="data:," height="40" width="40"><p>Dark on dark.</p>
<button>A</button><button>B</button><pre style="width: 500px">Wide</pre></main>
"""


@pytest.mark.parametrize(
    ("window", "finding"),
    [
        (axe.LIGHT, "image-alt: img"),
        (axe.DARK, "color-contrast: p"),
        (axe.NARROW, "target-size: button"),
        (axe.NARROW, "too wide: <pre"),
    ],
)
def test_what_is_wrong_is_found_in_its_window_alone(
    survey: Survey, window: axe.Window, finding: str
) -> None:
    survey.page.goto("about:blank")
    survey.page.set_content(BAD)
    survey.check("Bad", (axe.LIGHT, axe.DARK, axe.MIDDLE, axe.NARROW))
    found = [one for one in survey.findings if finding in one]
    assert found
    assert all(one.startswith(f"Bad ({window.name})") for one in found)
