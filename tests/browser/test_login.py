"""Logging in with a real browser: without scripts, and back to where one was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from pydantic import SecretStr

from app.registry.access import service
from app.registry.config import Settings
from tests.conftest import AppMaker
from tests.live_server import Live, serve

PASSWORD = "correct horse"


@pytest.fixture
def locked(settings: Settings, make_app: AppMaker) -> Iterator[Live]:
    """A running app that asks for a password."""
    changed = settings.model_copy(update={"password": SecretStr(PASSWORD)})
    with serve(make_app(changed), changed) as found:
        yield found


def test_a_person_logs_in_works_and_logs_out_without_scripts(
    chromium: Browser, locked: Live
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{locked.url}/play?seed=7")
    password = page.get_by_label("Password")
    expect(password).to_be_focused()
    password.fill("a wrong one")
    password.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    assert page.url == f"{locked.url}/play?seed=7"
    page.get_by_role("link", name="Sessions").click()
    expect(page.get_by_text("This browser")).to_be_visible()
    page.get_by_role("banner").get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{locked.url}/login")
    page.goto(f"{locked.url}/sessions")
    assert page.url == f"{locked.url}/login?next=/sessions"
    context.close()


def test_a_page_whose_session_ended_leads_to_the_login_and_back(
    chromium: Browser, locked: Live
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{locked.url}/play")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{locked.url}/play")  # and until its scripts are loaded
    with locked.database.write() as session:
        service.end_other_sessions(session, None)
    login = locked.server.config.app.state.login  # type: ignore[union-attr]
    login.forget()
    page.evaluate("htmx.ajax('GET', '/play', 'main')")  # as a page that refreshes itself
    expect(page).to_have_url(f"{locked.url}/login?next=/play")
    context.close()
