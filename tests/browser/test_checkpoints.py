"""Checkpoints as a person uses them, by keyboard too, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request, expect

from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser

CLICK_AT_ONCE = """
(selector) => new MutationObserver((_, observer) => {
  const found = document.querySelector(selector);
  if (!found) return;
  observer.disconnect();
  window.isClicked = true;
  found.click();
}).observe(document.body, { childList: true, subtree: true })
"""
"""Clicks what an answer brings before anything else happens."""


FONT_SIZES = "all => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"

MARKS = """all => all.map((one) => {
  return `${getComputedStyle(one).listStyleType} ${getComputedStyle(one, "::before").rotate}`;
})"""
"""The mark of the browser and that of the pages, of things that open."""


@pytest.fixture
def trained(live: Live) -> None:
    """A finished run with checkpoints and samples at 10, 20, 30 and 40 steps."""
    fake_workers.ready_base(live.state)
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.sample(0)
    for _ in range(4):
        training.train(10)
        training.checkpoint()
        training.sample(training.step)
    training.finish()


@pytest.mark.usefixtures("trained")
def test_a_checkpoint_is_kept_by_keyboard_without_losing_focus(page: Page) -> None:
    page.goto("/runs/1")
    sizes = page.locator(".row-actions :is(a, button, summary)").evaluate_all(FONT_SIZES)
    assert min(sizes) >= 15  # no action is in small print
    marks = page.locator("summary").evaluate_all(MARKS)
    assert set(marks) == {"none -45deg"}  # one for all that opens
    keep = page.get_by_role("button", name="Keep step 30")
    keep.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#step-30")).to_contain_text("kept by you")
    expect(keep).to_have_attribute("aria-pressed", "true")
    expect(keep).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#step-30")).not_to_contain_text("kept by you")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.evaluate(CLICK_AT_ONCE, "#step-30 [aria-pressed=true]")
    page.keyboard.press("Space")
    page.wait_for_function("() => window.isClicked")
    expect(keep).to_have_attribute("aria-pressed", "false")
    posts = [request for request in asked if request.method == "POST"]
    assert [request.headers.get("hx-request") for request in posts] == ["true", "true"]


@pytest.mark.usefixtures("trained")
def test_another_checkpoint_becomes_the_version_in_use(page: Page) -> None:
    page.goto("/runs/1")
    expect(page.locator("#step-40")).to_contain_text("in use")
    page.get_by_role("button", name="Use this one: step 20").click()
    expect(page.get_by_text("Version 2 of “Chalk” is in use now: step 20.")).to_be_visible()
    expect(page.locator("#step-20")).to_contain_text("in use")
    expect(page.locator("#step-40")).to_contain_text("version 1")
    page.locator("#step-20").get_by_role("link", name="in use").click()
    expect(page.locator(".page-facts")).to_contain_text("version 2")


@pytest.mark.usefixtures("trained")
def test_two_steps_are_compared_with_a_slider_by_keyboard_and_in_turn(page: Page) -> None:
    page.goto("/runs/1/compare?a=10&b=40")
    sliders = page.get_by_role("slider")
    expect(sliders).to_have_count(0)  # side by side first
    page.get_by_role("radio", name="Slider").check()
    expect(sliders).to_have_count(2)
    first = page.get_by_role("slider", name="Step 10 on the left, Step 40 on the right: a castle")
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(first).to_have_attribute("aria-valuetext", "51 % Step 10, 49 % Step 40")
    page.keyboard.press("End")
    for slider in (sliders.nth(0), sliders.nth(1)):  # they move together
        expect(slider).to_have_value("100")
    page.get_by_role("radio", name="Slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(sliders).to_have_count(0)
    expect(page.get_by_role("link", name="a castle, step 10")).to_be_visible()
    before, after = (page.get_by_role("link", name=f"a castle, step {step}") for step in (10, 40))
    page.get_by_role("radio", name="Flicker").check()
    by_itself = page.get_by_role("checkbox", name="By itself")
    expect(by_itself).not_to_be_checked()  # the browser asks for less motion
    for act in (page.keyboard.press, page.keyboard.press, lambda _: by_itself.check()):
        act("f")
        expect(after).to_be_visible()
        expect(before).to_be_hidden()
        before, after = after, before
    page.get_by_role("radio", name="Side by side").check()
    page.get_by_label("First").select_option("0")
    expect(page).to_have_url("/runs/1/compare?a=10&b=40")  # nothing happens unasked
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="a castle, base model")).to_be_visible()
