"""The large view of a sample: its address and its zoom, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser

PLACE = "frame => [frame.scrollLeft, frame.scrollTop]"


def run_with_samples(live: Live, steps: int) -> None:
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.sample(0)
    for _ in range(steps):
        training.train(1)
        training.sample(training.step)


def test_the_address_of_a_sample_opens_it_also_on_an_older_page(live: Live, page: Page) -> None:
    run_with_samples(live, 30)  # a page has 24
    page.goto("/runs/1")
    page.locator("#sample-30-0").click()
    expect(page).to_have_url(re.compile(r"/runs/1#sample-30-0$"))
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"/runs/1#sample-30-1$"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"/runs/1$"))
    expect(page.locator("#sample-30-1")).to_be_focused()
    page.goto("/runs/1#sample-3-1")
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("Step 3")
    expect(viewer.get_by_role("heading")).to_have_text("a rocket")
    expect(page).to_have_url(re.compile(r"/runs/1\?before=4#sample-3-1$"))
    page.reload()
    expect(viewer).to_contain_text("Step 3")
    page.evaluate("location.hash = '#sample-2-0'")
    expect(viewer).to_contain_text("Step 2 ")
    page.goto("/runs/1?before=4#sample-99-0")  # gone, or never made
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(viewer).to_be_hidden()


def test_a_sample_is_zoomed_and_moved_and_the_next_one_is_shown_alike(
    live: Live, page: Page
) -> None:
    run_with_samples(live, 2)
    page.goto("/runs/1#sample-2-0")
    viewer = page.get_by_role("dialog")
    frame, image = page.locator("[data-viewer-frame]"), page.locator("[data-viewer-image]")
    level = page.locator("[data-viewer-level]")
    zoom_in = viewer.get_by_role("button", name="Zoom in")
    side = frame.evaluate("frame => frame.clientWidth")
    assert image.evaluate("image => image.clientWidth") == side
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect(level).to_have_text("4×")
    assert abs(image.evaluate("image => image.clientWidth") - 4 * side) <= 4
    middle = frame.evaluate(PLACE)
    assert middle[0] > side
    page.keyboard.press("Shift+ArrowLeft")
    left = frame.evaluate(PLACE)
    assert left[0] < middle[0]
    box = frame.bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 120)
    page.mouse.up()
    moved = frame.evaluate(PLACE)
    assert (round(left[0] - moved[0]), round(left[1] - moved[1])) == (50, 20)
    page.keyboard.press("ArrowDown")
    expect(viewer).to_contain_text("Step 1 ")
    expect(level).to_have_text("4×")
    assert frame.evaluate(PLACE) == moved
    zoom_in.click()
    expect(level).to_have_text("8×")
    expect(zoom_in).to_have_attribute("aria-disabled", "true")
    for _ in range(4):
        page.keyboard.press("-")
    expect(level).to_have_text("1×")
    image.dblclick()
    expect(level).to_have_text("4×")
    page.keyboard.press("Escape")
    page.locator("#sample-2-1").click()
    expect(level).to_have_text("1×")


def test_a_checkpoint_is_used_from_the_large_view_of_its_sample(live: Live, page: Page) -> None:
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.sample(0)
    for step in (1, 2):
        training.train(1)
        training.sample(step)
    training.checkpoint()
    page.goto("/runs/1#sample-1-0")
    viewer = page.get_by_role("dialog")
    use = viewer.get_by_role("button", name="Use this version")
    expect(viewer).to_contain_text("Step 1 ")
    expect(use).to_be_hidden()  # it has no checkpoint
    page.keyboard.press("ArrowUp")
    expect(use).to_be_visible()
    tried = viewer.get_by_role("link", name="Try")
    expect(tried).to_have_attribute("href", re.compile(r"adapter=.+%402&prompt=a\+castle$"))
    page.keyboard.press("c")
    expect(use).to_be_hidden()
    expect(tried).to_be_hidden()
    page.keyboard.press("c")
    use.click()
    expect(page.locator("#toasts")).to_contain_text("Version 1 of “Chalk” is in use now: step 2.")
