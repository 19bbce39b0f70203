"""Selecting images and editing them in bulk, by keyboard alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app.registry.datasets import service
from app.registry.datasets.new_images import NewImage
from app.web.datasets.edit_forms import CHOICES
from tests.browser.boxes import boxes_of
from tests.browser.test_datasets import captions, png
from tests.costs import wide_but

pytestmark = pytest.mark.browser

FOCUSED = "document.activeElement.id"


@pytest.fixture
def dataset(live) -> str:
    """The address of a dataset with five images."""
    blob = live.state.store.put_bytes(png(1))
    with live.database.write() as session:
        row = service.create_dataset(session, "Boats", trigger_word="ink")
        new = [
            NewImage(f"{n}.png", f"{n:064x}", *2 * [blob.sha256], 80, 80, 9, f"boat {n}")
            for n in range(1, 6)
        ]
        service.add_images(session, row.key, new)
    return f"/datasets/{row.slug}"


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_images_are_selected_edited_and_undone_by_keyboard(page: Page, live, dataset: str) -> None:
    page.goto(dataset)
    count = page.locator("[data-selected-count]")
    page.locator("[data-select]").first.focus()
    press(page, "Space", "ArrowRight", "Shift+ArrowRight")
    expect(count).to_have_text("3 selected")
    press(page, "Tab")  # the tiles are one tab stop
    assert not page.evaluate("document.activeElement.closest('[data-tile]')")
    page.get_by_role("button", name="Add trigger word").press("Enter")
    preview = page.locator("#edit-preview")
    expect(preview).to_contain_text("Changes 3 captions")
    expect(page.locator("[data-caption-live]")).to_have_text("Changes 3 captions.")
    expect(page.get_by_label("Trigger word", exact=True).last).to_be_focused()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("chalk")
    press(page, "Enter")  # shows the preview at once
    expect(preview.locator("ins").first).to_have_text("chalk, ")

    with live.database.write() as session:  # another tab
        (first, *_) = service.list_images(session, service.dataset_by_slug(session, "boats").key)
        service.caption_image(session, first.key, "a red boat")
    expect(page.get_by_label("Trigger word", exact=True).last).to_be_focused()
    page.get_by_role("button", name="Apply").press("Enter")
    toast = page.locator("#toasts .toast")
    expect(toast).to_contain_text(
        "the trigger word, added to 2 captions. 1 left out. 1.png: It was"
    )
    expect(page.locator("#dataset-facts")).to_contain_text("Trigger word chalk")
    assert captions(live) == ["a red boat", "chalk, boat 2", "chalk, boat 3", "boat 4", "boat 5"]
    field = page.get_by_role("textbox", name="Caption of 3.png")
    expect(field).to_have_value("chalk, boat 3")
    expect(page.locator("[data-select]").nth(2)).to_be_focused()
    press(page, "Enter")
    expect(field).to_be_focused()
    press(page, "Control+ArrowRight", "Escape")
    expect(page.locator("[data-select]").nth(3)).to_be_focused()

    page.reload()
    page.get_by_role("button", name="Undo: Made “chalk” the trigger word").press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Undone: made “chalk” the trigger word, added")
    expect(page.locator("#dataset-facts")).to_contain_text("Trigger word ink")
    expect(field).to_have_value("boat 3")
    expect(page.locator("#edit-steps")).to_be_hidden()
    page.locator("[data-select]").first.focus()
    press(page, "ControlOrMeta+a")
    expect(count).to_have_text("5 selected")
    press(page, "ArrowRight", "Space")
    expect(count).to_have_text("4 selected")
    press(page, "Escape")
    expect(count).to_have_text("")

    press(page, "ArrowRight", "Space")
    page.get_by_text("More", exact=True).nth(0).press("Enter")
    page.locator(".bulk-bar").get_by_role("button", name="Delete").press("Enter")
    page.get_by_role("button", name="Apply").press("Enter")
    expect(page.locator("#toasts")).to_have_text(re.compile("^\\s*Deleted 1 image\\."))
    expect(page.locator("[data-select]")).to_have_count(4)
    expect(page.get_by_role("checkbox", name="Select 4.png")).to_be_focused()


def test_the_bar_hides_neither_the_image_nor_the_field_with_the_focus(
    page: Page, dataset: str
) -> None:
    page.set_viewport_size({"width": 768, "height": 600})
    page.goto(dataset)
    page.locator("[data-select]").first.focus()
    press(page, "Space", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp")
    bottom = "document.querySelector('[data-bulk]').getBoundingClientRect().bottom"
    tile = "document.activeElement.closest('[data-tile]').getBoundingClientRect().top"
    page.wait_for_function(f"{bottom} <= {tile}")
    page.get_by_role("button", name="Find and replace").press("Enter")
    find = page.get_by_label("Find", exact=True)
    expect(find).to_be_focused()
    head = "document.getElementById('edit-title').getBoundingClientRect().top"
    page.wait_for_function(f"{bottom} <= {head}")
    top = find.bounding_box()
    page.keyboard.type("boat")
    expect(page.locator("#edit-preview h3")).to_have_text("Changes 1 caption")
    assert find.bounding_box() == top  # the preview grows below it
    page.set_viewport_size({"width": 320, "height": 256})  # as at 400 % zoom
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("[data-bulk]")).not_to_be_in_viewport()


@pytest.mark.parametrize("width", wide_but([320, 360, 720, 768, 1440], 320, 768))
def test_every_action_is_in_reach_and_the_undo_beside_the_images(
    page: Page, dataset: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 780})
    page.goto(dataset)
    page.locator("[data-select]").first.check()
    bar = page.locator(".bulk-actions")
    assert bar.evaluate("bar => bar.scrollWidth <= bar.clientWidth")
    bar.get_by_text("More", exact=True).click()
    for choice in CHOICES:
        expect(bar.get_by_role("button", name=choice.label, exact=True)).to_have_count(1)
    expect(bar.get_by_role("link", name="Write captions for me")).to_have_count(1)
    bar.get_by_role("button", name="Never flip").click()
    page.get_by_role("button", name="Apply").click()
    undo = page.get_by_role("button", name="Undo: No more flips of 1 image")
    expect(undo).to_be_visible()
    tiles, steps = boxes_of(page.locator("[data-tiles]"), page.locator("#edit-steps"))
    is_above = steps["y"] + steps["height"] <= tiles["y"]
    assert is_above or (steps["x"] >= tiles["x"] + tiles["width"] and steps["y"] == tiles["y"])
    undo.click()
    expect(page.locator("#edit-steps")).to_be_hidden()
