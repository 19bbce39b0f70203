"""Grids in a real browser: made from the playground, filled while keys walk it, a winner chosen."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app.registry import prompt_sets
from app.registry.adapters import service as adapters
from app.web.runs.prompt_sets_api import ANIMALS
from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


def test_a_grid_fills_while_keys_walk_it_and_its_winner_is_used(live: Live, page: Page) -> None:
    adapter = fake_workers.adapter(live.state)
    fake_workers.adapter(live.state, "Night")
    page.goto("/play?adapter=chalk:0.8&prompt=a+castle&seed=7")
    page.get_by_role("button", name="Grid…").click()
    expect(page).to_have_url(re.compile("/grids/new"))
    page.locator("#rows-what").select_option("adapter:0")
    page.get_by_role("button", name="Add an adapter to the rows").click()
    page.get_by_role("button", name="Add Night").click()
    expect(page.locator("#rows-values")).to_have_value("chalk, Night")  # after what is in the stack
    rows = page.get_by_role("group", name="Values of the rows")
    expect(rows.get_by_role("checkbox")).to_have_count(2)
    rows.get_by_label("Chalk").uncheck()
    expect(page.locator("#rows-values")).to_have_value("night@1")
    page.get_by_role("button", name="Add an adapter to the rows").click()
    page.get_by_role("button", name="Add Chalk").click()  # that of the stack, to compare with
    expect(rows.get_by_label("Chalk")).to_be_checked()
    page.get_by_role("button", name="Add an adapter", exact=True).click()
    expect(page.get_by_role("button", name="Add Chalk")).to_be_hidden()
    page.get_by_role("searchbox").press("ArrowDown")
    expect(page.get_by_role("button", name="Add Night")).to_be_focused()
    page.get_by_role("button", name="Add Night").click()
    expect(page.locator("#columns-what")).to_contain_text("Weight of Night")
    page.get_by_role("button", name="Remove Night").click()
    expect(page.locator("#columns-what")).not_to_contain_text("Weight of Night")
    prompt = page.locator("#prompt")
    expect(prompt).to_have_accessible_name("Prompt")
    for what in ("seed", "steps", "prompt"):  # as by arrow keys: the last one counts
        page.locator("#rows-what").select_option(what)
    expect(rows.get_by_label("a castle")).to_be_checked()
    for name in ("columns", "rows"):
        page.locator(f"#{name}-axis").get_by_text("Type values").click()
    expect(prompt).to_have_accessible_name("Prompt · not used, an axis varies it")
    page.locator("#rows-values").fill("a fox\nan owl")
    expect(page.locator("#estimate")).to_contain_text("10 images.")
    page.locator("#columns-values").fill("0.5 to 0")
    page.locator("#columns-values").fill("0.5 to much")
    expect(page.locator("#estimate")).to_contain_text("no number and no range")
    page.locator("#columns-values").fill("0.5, 0.75, 1")
    expect(page.locator("#estimate")).to_contain_text("6 images.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Weight × prompt")).to_be_visible()

    cells = page.locator(".grid-cell")
    expect(cells).to_have_count(6)
    assert cells.evaluate_all("all => all.filter((cell) => cell.tabIndex === 0).length") == 1
    cells.nth(0).focus()
    for key, place in (("ArrowRight", 1), ("ArrowDown", 4), ("End", 5), ("ArrowRight", 5)):
        page.keyboard.press(key)
        expect(cells.nth(place)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    fake_workers.draw(live.state)
    expect(page.locator(".grid-cell img")).to_have_count(6)
    expect(page.locator("#grid-told")).to_contain_text("The grid has ended: 6 images.")
    expect(cells.nth(4)).to_be_focused()  # what came in did not take the focus
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-title")).to_have_text("an owl, Chalk 0.75")
    expect(cells.nth(4)).to_be_focused()
    expect(cells.nth(4)).to_have_attribute("aria-current", "true")
    expect(page).to_have_url(re.compile("cell=4"))
    page.get_by_role("button", name="Use this weight, 0.75").click()
    expect(page.locator("#chosen .notice")).to_contain_text("0.75 is the usual weight of “Chalk”")
    with live.state.database.read() as session:
        row = adapters.get_adapter(session, adapter.key)
        assert adapters.get_version(session, row).usual_weight == 0.75

    cells.nth(4).focus()
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile(r"/compare\?a=4&b=5"))
    expect(page.get_by_role("img", name="an owl, Chalk 1.00")).to_be_visible()
    page.get_by_role("link", name="Back to the grid").click()
    expect(cells.nth(4)).to_have_attribute("aria-current", "true")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export sheet").click()
    assert download.value.suggested_filename == "brushwork-grid-1-1.png"
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Undo").click()
    expect(cells).to_have_count(6)


def test_what_is_wrong_with_a_grid_has_the_focus(live: Live, page: Page) -> None:
    page.goto("/grids/new")
    page.get_by_role("button", name="Start the grid").click()
    expect(page.locator("p", has_text="Nothing was generated.")).to_be_focused()


def test_an_axis_is_filled_with_a_prompt_set_by_keyboard(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    with live.state.database.write() as session:
        prompt_sets.create_set(session, "Animals", ANIMALS)
    page.goto("/grids/new?adapter=chalk:0.8&prompt=a+castle&seed=7")
    page.locator("#rows-what").select_option("prompt")
    page.get_by_label("Prompts of a set").focus()
    page.keyboard.press("a")
    rows = page.get_by_role("group", name="Values of the rows")
    expect(rows.get_by_role("checkbox")).to_have_count(len(ANIMALS))
    expect(rows.get_by_label("a snail, chalkboard style")).to_be_checked()
    page.locator("#rows-axis").get_by_text("Type values").click()
    expect(page.locator("#rows-values")).to_have_value(
        "\n".join(f"{one}, chalkboard style" for one in ANIMALS)
    )
    expect(page.locator("#estimate")).to_contain_text("30 images.")
