"""Layers above a page: menus close, and in a short window no bar covers what is below."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser

OPENERS = "[popovertarget]:visible, details[data-menu] > summary:visible"
NAME = "opener => opener.getAttribute('popovertarget') ?? opener.parentElement.className"
OPEN = ":popover-open, details[data-menu][open]"
OUTSIDE = (4, 600)
"""A place in the margin of every page."""
UNMARKED = """
() => [...document.querySelectorAll("details:not([data-menu])")].filter((details) => {
  details.open = true;
  const content = [...details.children].slice(1);
  return content.some((box) => ["absolute", "fixed"].includes(getComputedStyle(box).position));
}).map((details) => details.className)
"""

ABOVE = """
() => [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  const isSeen = box.height > 0 && box.bottom > 0 && box.top < innerHeight;
  return isSeen && ["fixed", "sticky"].includes(getComputedStyle(element).position);
}).map((element) => element.className)
"""


def test_at_400_percent_no_bar_covers_the_button_of_a_form(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.set_viewport_size({"width": 320, "height": 256})
    for address, name in (("/train/new", "Start training"), ("/play", "Generate")):
        page.goto(address)
        button = page.get_by_role("button", name=name)
        button.focus()
        expect(button).to_be_in_viewport(ratio=1)
        assert page.evaluate(ABOVE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_with_forced_colors_states_are_still_seen(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state, "Ink"))
    fake_workers.FakeTraining(live.state).train(20)
    page.emulate_media(forced_colors="active")
    page.goto("/play?adapter=chalk:1")
    switch = page.locator(".switch input").first
    on = switch.evaluate("input => getComputedStyle(input).backgroundColor")
    switch.evaluate("input => { input.checked = false }")
    expect(switch).not_to_have_css("background-color", on)
    expect(page.locator(".places [aria-current]")).to_have_css("text-decoration-line", "underline")
    page.goto(f"/runs/{run.key}")
    bar = Image.open(io.BytesIO(page.locator("#run-progress progress").screenshot()))
    done, left = (bar.getpixel((round(bar.width * at), bar.height // 2)) for at in (0.1, 0.9))
    assert done != left


def test_escape_and_a_click_outside_close_every_menu(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state, "Ink"))
    fake_workers.FakeTraining(live.state).train(10)
    tested = set()
    for address in (
        "/patterns",
        "/adapters",
        "/adapters/chalk",
        f"/runs/{run.key}",
        "/datasets/chalk?select=all",
        "/play",
    ):
        page.goto(address)
        for opener in page.locator(OPENERS).all():
            name = opener.evaluate(NAME)
            if name in tested:
                continue
            tested.add(name)
            opener.click()
            expect(page.locator(OPEN)).to_have_count(1)
            page.keyboard.press("Escape")
            expect(page.locator(OPEN)).to_have_count(0)
            expect(opener).to_be_focused()
            opener.press("Enter")
            expect(page.locator(OPEN)).to_have_count(1)
            page.mouse.click(*OUTSIDE)
            expect(page.locator(OPEN)).to_have_count(0)
        assert page.evaluate(UNMARKED) == [], address
    assert tested >= {
        "theme-menu",
        "shortcuts",
        "confirm-example",
        "downloads",
        "downloads from-hub",
        "bulk-more",
        "cancel-confirm",
    }
