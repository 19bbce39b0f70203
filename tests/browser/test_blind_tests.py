"""A blind test in a real browser: judged by keys and by a finger, both images shown at once."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from app.registry.blind_tests.plan import BlindRequest
from app.registry.tables.blind_tests import Question
from tests import fake_workers
from tests.app.blind_tests.test_judging import started, step
from tests.browser.conftest import Live
from tests.fake_workers import FakeTraining

pytestmark = pytest.mark.browser


@pytest.fixture
def run(live: Live) -> int:
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state, pictures=10))
    training = FakeTraining(live.state)
    for _ in range(2):
        training.train(20)
        training.checkpoint()
    training.finish()
    return training.run_id


def test_a_test_is_made_and_judged_by_keys_alone(live: Live, page: Page, run: int) -> None:
    page.goto(f"/runs/{run}")
    page.get_by_role("link", name="Blind test").press("Enter")
    plan = page.locator("#blind-plan")
    expect(plan).to_contain_text("within 106 pairs")
    page.get_by_label("Without adapters").press("Space")
    expect(plan).to_contain_text("75 in 100 over each other one")
    page.get_by_label("Without adapters").press("Space")
    page.get_by_label("Which would you keep?").press("Space")
    expect(plan).to_contain_text("within 102 pairs")
    page.get_by_role("button", name="Start").press("Enter")
    expect(page.get_by_text("0 of 192 images are there")).to_be_visible()
    fake_workers.draw(live.state)
    pair, progress = page.locator(".blind-pair"), page.locator(".blind-progress")
    expect(pair).to_have_attribute("data-ready", "true")  # by itself
    for judged, key in enumerate("1201", 1):
        page.keyboard.press(key)
        expect(progress).to_contain_text(f"{judged} judged")
        expect(page.locator("[data-blind-told]")).to_have_text(f"Pair {judged + 1}")
    assert page.evaluate("document.activeElement === document.body")  # no answer is marked
    page.keyboard.press("u")
    expect(progress).to_contain_text("3 judged")
    page.keyboard.press("z")
    expect(page.get_by_role("button", name="Look closer")).to_have_attribute("aria-pressed", "true")
    before = page.locator(".blind-image img").first.evaluate("one => getComputedStyle(one).scale")
    assert before == "3"
    page.keyboard.press("ArrowLeft")
    moved = page.evaluate("document.body.style.getPropertyValue('--x')")
    assert moved == "40%"
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    expect(progress).to_contain_text("4 judged")
    left = page.get_by_role("button", name="Left")
    left.press("Enter")
    expect(progress).to_contain_text("5 judged")
    expect(page.get_by_role("button", name="Left")).to_be_focused()  # where it was put
    page.get_by_role("button", name="Stop here").press("Enter")
    page.get_by_role("button", name="Stop and see").press("Enter")
    expect(page.get_by_role("heading", name="No clear preference.")).to_be_visible()
    page.get_by_role("button", name="Go on judging").press("Enter")
    expect(progress).to_contain_text("5 judged")


def test_neither_image_shows_before_both_are_there(live: Live, page: Page, run: int) -> None:
    wanted = BlindRequest(question=Question.CLOSER, candidates=[step(run, 20), step(run, 40)])
    test = started(live.state, wanted)
    fake_workers.draw(live.state)
    held: list[Route] = []
    page.route("**/pairs/*/right", lambda route: held.append(route))
    page.goto(f"/blind-tests/{test.key}", wait_until="commit")
    left = page.locator(".blind-image img").first
    expect(left).to_have_js_property("complete", True)
    expect(left).to_be_hidden()
    expect(page.locator(".blind-references img")).to_have_count(3)
    held[0].continue_()
    expect(left).to_be_visible()
    expect(page.locator(".blind-image img").last).to_be_visible()


def test_on_a_phone_the_images_stand_one_above_the_other(live: Live, page: Page, run: int) -> None:
    wanted = BlindRequest(question=Question.CLOSER, candidates=[step(run, 20), step(run, 40)])
    test = started(live.state, wanted)
    fake_workers.draw(live.state)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/blind-tests/{test.key}")
    expect(page.locator(".blind-pair")).to_have_attribute("data-ready", "true")
    upper, lower = (page.locator(".blind-image").nth(place).bounding_box() for place in (0, 1))
    assert upper is not None
    assert lower is not None
    assert lower["y"] >= upper["y"] + upper["height"]
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
    answers = page.locator(".blind-answers button")
    expect(answers).to_have_text(["Upper", "No difference", "Lower"], use_inner_text=True)
    box = answers.last.bounding_box()
    assert box is not None
    assert 640 < box["y"] < box["y"] + box["height"] <= 740
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    answers.first.click()
    expect(page.locator(".blind-progress")).to_contain_text("1")
    expect(page.locator("#blind")).to_have_attribute("data-number", "2")
