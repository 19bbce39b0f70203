"""Deletions, Undo and “Use this version” by keyboard: the focus is never lost."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Live
from tests.browser.filled_registry import fill

pytestmark = pytest.mark.browser


def test_the_focus_is_on_undo_and_then_on_what_came_back(live: Live, page: Page) -> None:
    ids = fill(live)
    run, trained = ids["failed"], ids["trained"]
    undo = page.locator("#toasts").get_by_role("button", name="Undo")
    for address, button, place in (
        ("/runs", f"#delete-{run}", f"#run-{run}"),
        (f"/runs/{run}", ".actions .danger", f"#run-{run}"),
        (f"/runs/{trained}", "#step-20 .row-more button", "#step-20"),
        ("/adapters/chalk?v=2", "#versions form.compact button", "#versions"),
        ("/train/presets", ".preset-list .danger", ".preset-list > li"),
        ("/recipes", ".recipe .danger", ".recipe"),
        ("/grids/1", ".actions .danger", "#content"),
        ("/adapters/ink", ".actions .danger", "#content"),
        ("/datasets/broken", "form[action='/datasets/broken/delete'] button", "#content"),
    ):
        page.goto(address)
        page.locator(button).first.evaluate("(button) => button.form.requestSubmit(button)")
        expect(undo).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#toasts")).to_contain_text("restored.")
        expect(page.locator(f"{place}:focus, {place} :focus")).to_have_count(1)
    for address, name in (
        ("/adapters/chalk?v=3", "Use this version: 3"),
        (f"/runs/{trained}", "Use this one: step 30"),
    ):
        page.goto(address)
        page.get_by_role("button", name=name).last.press("Enter")
        expect(undo).to_be_focused()
