"""Pages of people by keyboard: the focus is never lost, and a reload repeats nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import BrowserContext, Page, expect

from app.registry.datasets import service as datasets
from app.registry.people import invitations, service, tokens
from tests.browser.accounts import log_in, with_accounts
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def accounts(app: FastAPI, live: Live, context: BrowserContext) -> Iterator[None]:
    """The administrator Eva is logged in."""
    with with_accounts(app, live, context):
        yield


def test_a_new_token_has_the_focus_and_a_reload_makes_no_other(live: Live, page: Page) -> None:
    page.goto("/account")
    page.get_by_label("Name").fill("script")
    page.get_by_role("button", name="Make a token").dblclick()
    token = page.get_by_role("textbox", name="New token")
    expect(token).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    page.reload()
    expect(token).to_have_count(0)
    with live.database.read() as session:
        assert len(tokens.list_tokens(session, 1)) == 1


def test_a_new_link_has_the_focus_and_a_reload_makes_no_other(page: Page) -> None:
    page.goto("/people")
    page.get_by_label("Name", exact=True).fill("Farah")
    page.keyboard.press("Enter")
    link = page.get_by_role("textbox", name="Link for Farah")
    expect(link).to_be_focused()
    first = link.input_value()
    page.reload()
    expect(link).to_have_count(0)
    page.get_by_role("button", name="Make a new link for Farah").press("Enter")
    expect(link).to_be_focused()
    assert link.input_value() != first
    page.get_by_label("Name", exact=True).fill("farah")
    page.keyboard.press("Enter")
    expect(page.locator("[aria-invalid=true]")).to_be_focused()


def test_a_password_that_is_too_long_is_refused_not_cut(live: Live, page: Page) -> None:
    with live.database.write() as session:
        token = invitations.make_invitation(session, service.get_user(session, 2))
    page.goto(invitations.PATH + token)
    field = page.get_by_label("New password")
    field.press_sequentially("long words " * 11 + "12345678")
    page.get_by_role("button", name="Save and log in").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("this one has 129.")


def test_the_focus_stays_in_the_panel_to_share(live: Live, page: Page) -> None:
    with live.database.write() as session:
        datasets.create_dataset(session, "Boats")
    page.goto("/datasets/boats")
    page.locator(".share > summary").press("Enter")
    person, undo = page.get_by_label("Add a person"), page.get_by_role("button", name="Undo")
    row = page.get_by_label("What Ana may do")
    person.select_option("Ana")
    page.get_by_role("button", name="Add", exact=True).press("Enter")
    expect(row).to_be_focused()
    undo.press("Enter")
    expect(person).to_be_focused()
    undo.press("Enter")
    expect(row).to_be_focused()
    page.get_by_role("button", name="No longer for Ana").press("Enter")
    expect(person).to_be_focused()
    page.locator("#share-studio").press("ArrowUp")
    expect(page.locator("#share-private")).to_be_focused()
    expect(page.locator("#sharing input[type=hidden][name=visibility]")).to_have_count(1)  # saved
    undo.press("Enter")
    expect(page.locator("#share-studio")).to_be_focused()


def test_a_viewer_is_offered_what_the_role_permits(
    live: Live, context: BrowserContext, page: Page
) -> None:
    with live.database.write() as session:
        datasets.create_dataset(session, "Boats")
    page.goto("/datasets")
    new = page.get_by_role("link", name="New dataset")
    expect(new).to_be_visible()
    log_in(live, context, user_id=2)
    page.reload()
    expect(new).to_be_hidden()
    expect(page.get_by_role("button", name="Create")).to_have_count(0)
    for address, offered in (
        ("/account", "Make a token"),
        ("/account", "Log out"),
    ):
        page.goto(address)
        expect(page.get_by_role("button", name=offered)).to_be_visible()
    page.goto("/play")
    expect(page.get_by_role("button", name="Generate")).to_be_hidden()


def test_disabling_and_giving_away_ask_first(live: Live, page: Page) -> None:
    page.goto("/people")
    page.locator("details.person > summary").first.press("Enter")
    page.get_by_role("button", name="Disable Ana").press("Enter")
    question = page.locator("#disable-2")
    expect(question).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(page.get_by_role("button", name="Disable Ana")).to_be_focused()
    page.get_by_role("button", name="Give them all things").first.press("Enter")
    page.locator("#give-2").get_by_role("button", name="Give all things").press("Enter")
    expect(page.locator("#toasts")).to_contain_text("things of Ana are Eva's.")
    page.locator("details.person > summary").first.press("Enter")
    page.get_by_role("button", name="Disable Ana").press("Enter")
    question.get_by_role("button", name="Disable").press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Saved: Ana, disabled.")
