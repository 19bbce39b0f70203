"""axe-core finds nothing in any state of any page, and nothing is wider than its window."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from playwright.sync_api import BrowserContext, Page

from app.registry.db import Database, make_engine
from app.web.access.login import Login
from tests.browser import axe, page_states
from tests.browser.accounts import with_accounts
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
    "/play/restyle/{image_id}",
    "/example/{style}/{name}.webp",
    "/grids/{grid_id}/cells/{place}",
    "/grids/{grid_id}/live",
    "/grids/{grid_id}/sheet.png",
    "/healthz",
    "/home/runs",
    "/imports/{job_id}",
    "/media/{sha256}",
    "/people/log.csv",
    "/media/{sha256}/{size}",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/renders/compare-chosen",
    "/renders/zip",
    "/renders/{render_id}/live",
    "/renders/{render_id}/strip",
    "/running",
    "/runs/{run_id}/live",
    "/sweeps",
    "/tool-jobs/{job_id}",
    "/train/new/datasets",
    "/train/new/measure",
    "/train/new/paste",
    "/train/new/preset",
    "/train/new/prompts",
}
"""Addresses of files, of parts that a page loads, and three that lead elsewhere."""


STATES = (
    *(state for group in page_states.FILLED.values() for state in group),
    *page_states.LOCKED,
    *page_states.PEOPLE,
    *page_states.EMPTY,
    *page_states.AWAY,
)

WindowsOf = Callable[[PageState], Sequence[axe.Window]]


def every_window(state: PageState) -> Sequence[axe.Window]:
    """All windows and themes; colors of the system, where nothing was done to the page."""
    if state.repeats:
        return (axe.KNOWN_COLORS, axe.NARROW)
    forced = () if state.act or state.part else (axe.FORCED,)
    return (axe.LIGHT, axe.DARK, *forced, axe.MIDDLE, axe.NARROW)


def few_windows(app: FastAPI) -> WindowsOf:
    """One narrow window; every theme and width for the first state of each page."""
    first: dict[str | None, PageState] = {}
    for state in STATES:
        if not state.part and not state.repeats:
            first.setdefault(next(iter(routes_of(app, state)), None), state)

    def windows(state: PageState) -> Sequence[axe.Window]:
        if state in first.values():
            return axe.FEW
        return (axe.NARROW_ALONE_KNOWN_COLORS if state.repeats else axe.NARROW_ALONE,)

    return windows


@pytest.fixture(params=["few", pytest.param("every", marks=pytest.mark.wide)])
def windows_of(request: pytest.FixtureRequest, app: FastAPI) -> WindowsOf:
    """Where a state is checked; in every window by `make wide` alone."""
    if request.param == "every":
        return every_window
    request.getfixturevalue("few_operations")
    return few_windows(app)


def routes_of(app: FastAPI, state: PageState) -> list[str]:
    """The paths of the pages that answer the address of a state; the first of them does."""
    path = state.address.partition("?")[0].replace("{", "").replace("}", "")
    for name in ("trained", "running", "queued"):
        path = path.replace(name, "1")
    return [page for page, pattern in pages_of(app).items() if pattern.match(path)]


def pages_of(app: FastAPI) -> dict[str, re.Pattern[str]]:
    """The paths of everything that a browser can load, with their patterns."""
    return {
        str(context.path): context.path_regex
        for context in iter_route_contexts(list(app.routes))
        if "GET" in (context.methods or ()) and not str(context.path).startswith("/api/")
    }


def visit(
    survey: Survey, windows_of: WindowsOf, states: Sequence[PageState], ids: Ids | None = None
) -> None:
    """Load each state once and check it; nothing may be found."""
    for state in states:
        windows = windows_of(state)
        axe.show(survey.page, axe.LIGHT if state.act else windows[0])
        survey.page.goto(state.address.format(**ids or {}))
        if state.act:
            state.act(survey.page)
        survey.check(state.name, windows, state.part)
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


def test_nothing_is_found_in_an_empty_registry(survey: Survey, windows_of: WindowsOf) -> None:
    visit(survey, windows_of, page_states.EMPTY)


@pytest.mark.parametrize("group", page_states.FILLED)
def test_nothing_is_found_in_a_filled_registry(
    survey: Survey, windows_of: WindowsOf, live: Live, group: str
) -> None:
    visit(survey, windows_of, page_states.FILLED[group], fill(live))


def test_nothing_is_found_where_a_password_is_asked_for(
    survey: Survey, windows_of: WindowsOf, app: FastAPI, live: Live
) -> None:
    with locked(app, live):
        visit(survey, windows_of, page_states.LOCKED)


def test_nothing_is_found_where_people_have_accounts(
    survey: Survey, windows_of: WindowsOf, app: FastAPI, live: Live, context: BrowserContext
) -> None:
    ids = fill(live)
    with with_accounts(app, live, context):
        visit(survey, windows_of, page_states.PEOPLE, ids)


def test_nothing_is_found_while_the_database_is_away(
    survey: Survey, windows_of: WindowsOf, app: FastAPI
) -> None:
    with away(app):
        visit(survey, windows_of, page_states.AWAY)


def test_every_page_has_a_state(app: FastAPI) -> None:
    assert sum(len(every_window(state)) for state in STATES) >= FEWEST
    visited = {route for state in STATES for route in routes_of(app, state)}
    assert pages_of(app).keys() - visited == NO_PAGES


def test_every_page_is_checked_once_in_every_theme_and_width(app: FastAPI) -> None:
    assert {window.size for window in axe.FEW} == {(1440, 900), (768, 1024), (360, 740)}
    themes = {(window.colors, window.forced) for window in axe.FEW}
    assert themes == {("light", False), ("dark", False), ("light", True)}
    windows_of = few_windows(app)
    thorough = [state for state in STATES if windows_of(state) == axe.FEW]
    new = [state for state in STATES if not state.part and not state.repeats]
    routes = {route for state in new for route in routes_of(app, state)[:1]}
    assert {route for state in thorough for route in routes_of(app, state)[:1]} == routes


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
    ("windows", "found_in"),
    [
        (
            (axe.LIGHT, axe.DARK, axe.MIDDLE, axe.NARROW),
            {
                "image-alt: img": {axe.LIGHT},
                "color-contrast: p": {axe.DARK},
                "target-size: button": {axe.NARROW},
                "too wide: <pre": {axe.NARROW},
            },
        ),
        (
            axe.FEW,
            {
                "image-alt: img": {axe.NARROW_ALONE, axe.WIDE_FORCED},
                "color-contrast: p": {axe.MIDDLE_DARK},
                "target-size: button": {axe.NARROW_ALONE},
                "too wide: <pre": {axe.NARROW_ALONE},
            },
        ),
    ],
)
def test_what_is_wrong_is_found_in_its_window_alone(
    survey: Survey, windows: Sequence[axe.Window], found_in: dict[str, set[axe.Window]]
) -> None:
    survey.page.goto("about:blank")
    survey.page.set_content(BAD)
    survey.check("Bad", windows)
    for finding, where in found_in.items():
        places = {one.partition(": ")[0] for one in survey.findings if finding in one}
        assert places == {f"Bad ({window.name})" for window in where}, finding
