"""The console stays empty during the main actions: no error, no warning, no blocked style.

That of every page and state does in `test_axe.py`: the fixture `context` fails on any message.
"""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests import fake_workers
from tests.browser.conftest import Live
from tests.browser.test_datasets import choose, payload, png


def test_what_is_generated_logs_nothing_on_the_pages_that_show_it(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:1&prompt=a+castle")
    page.get_by_role("button", name=re.compile("Generate")).last.click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    fake_workers.draw(live.state)
    page.goto("/adapters/chalk")
    page.get_by_role("heading", name="Hugging Face Hub").scroll_into_view_if_needed()
    expect(page.locator("#hub")).to_contain_text("This publishes version 1")  # loaded on the way
    page.goto("/renders/1")
    page.locator("#result .picture").first.click()  # the image file itself
    expect(page).to_have_url(re.compile("/media/"))


def test_working_on_a_dataset_and_its_run_logs_nothing(live: Live, page: Page) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state)
    page.goto("/datasets/chalk")
    choose(page, [payload("new.png", png(9))])
    expect(page.locator(".tile")).to_have_count(4)
    page.get_by_role("textbox", name="Caption of new.png").press_sequentially("a boat")
    expect(page.locator(".tile").last.locator("[data-state]")).to_have_text("Saved")
    page.get_by_role("button", name="Delete new.png").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".tile")).to_have_count(4)
    page.get_by_role("link", name="Train this style").click()
    page.get_by_text("Advanced").click()
    page.locator("#settings-adapter > summary").click()
    for name in ("Steps", "Rank", "Alpha"):  # the answers overtake each other
        page.get_by_label(name, exact=True).select_text()
        page.keyboard.type("12", delay=450)
    page.get_by_role("radio", name=re.compile("Balanced")).check()
    page.get_by_label("Alpha", exact=True).fill("4")
    expect(page.locator("#advanced-facts")).to_contain_text("changed")
    page.get_by_role("button", name="Start training").click()
    training = fake_workers.FakeTraining(live.state)
    training.train(2)
    training.sample(0)
    expect(page.locator("#sample-0-1 img")).to_be_visible()
    page.locator("#sample-0-0").click()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Stop and keep").click()
    page.get_by_role("button", name="Stop and keep").click()
    expect(page.locator("#run-head")).to_contain_text("Stopping…")


def test_generating_and_searching_logs_nothing(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:0.75&prompt=a+castle")
    # a style set by a script is not an attribute that htmx may copy
    page.evaluate("document.getElementById('result').style.opacity = 1")
    for steps in (4, 5):
        page.get_by_label("Steps").fill(str(steps))
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        fake_workers.draw(live.state)
        expect(page.locator("#result .comparison img")).to_have_count(2)
        for mode in ("Flicker", "Side by side", "Slider"):
            page.get_by_role("radio", name=mode).check()
        page.get_by_role("slider", name="Without your style on the right").fill("20")
    page.goto("/adapters")
    page.get_by_role("searchbox").press_sequentially("chalkboard", delay=150)
    expect(page.locator("#adapter-count")).to_contain_text("1 adapter found")
    page.get_by_role("button", name="Star Chalk").click()
    expect(page.get_by_role("button", name="Star Chalk")).to_have_attribute("aria-pressed", "true")
