"""Runs as a person meets them: choose, watch, look closely, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app.registry.runs import service
from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


def test_the_summary_follows_the_choices_and_changes_survive_another_preset(
    live: Live, page: Page
) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state, pictures=24)
    page.goto("/train/new?preset=quick")
    facts = page.locator("#this-run")
    expect(facts).to_contain_text("Each image is seen about 67 times.")
    expect(facts.locator("dd").first).to_have_text("200")
    page.get_by_text("Advanced").click()
    page.get_by_label("Alpha", exact=True).fill("4")
    expect(page.locator("#advanced-facts")).to_contain_text("1 changed")
    expect(
        page.locator("[data-setting]", has=page.locator("#alpha")).get_by_text("changed")
    ).to_be_visible()
    page.get_by_role("radio", name=re.compile("Thorough")).check()
    expect(facts).to_contain_text("1,200")
    expect(page.get_by_label("Rank", exact=True)).to_have_value("16")
    expect(page.get_by_label("Alpha", exact=True)).to_have_value("4")
    page.get_by_label("Steps", exact=True).fill("600")
    expect(facts).to_contain_text("Each image is seen 200 times.")
    expect(facts.locator("dd").first).to_have_text("600")
    expect(page.get_by_label("Steps", exact=True)).to_be_focused()
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Chalk")
    with live.database.read() as session:
        (run,) = service.list_runs(session)
    assert (run.total_steps, run.config["alpha"], run.config["rank"]) == (600, 4.0, 16)


def test_errors_come_with_a_summary_that_leads_into_the_closed_settings(
    live: Live, page: Page
) -> None:
    fake_workers.ready_base(live.state)
    fake_workers.dataset(live.state)
    page.goto("/train/new")
    page.get_by_text("Advanced").click()
    page.get_by_label("Learning rate", exact=True).fill("fast")
    page.get_by_text("Advanced").click()
    page.get_by_role("button", name="Start training").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    summary.get_by_role("link", name="Learning rate").click()
    field = page.get_by_label("Learning rate", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_value("fast")
    expect(field).to_have_accessible_description(re.compile("Enter a number"))


def test_a_run_is_watched_from_the_queue_to_its_adapter_without_a_reload(
    live: Live, page: Page
) -> None:
    fake_workers.ready_base(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    page.goto(f"/runs/{run.key}")
    expect(page.locator("#run-progress")).to_contain_text("Waiting for a worker")
    training = fake_workers.FakeTraining(live.state)
    training.train(10)
    training.sample(0)
    expect(page).to_have_title("25 % · Chalk · Brushwork")
    expect(page.locator("#run-progress")).to_contain_text("Step 10 of 40")
    expect(page.locator("#sample-0-1 img")).to_be_visible()
    expect(page.locator(".chart canvas")).to_be_visible()
    expect(page.locator("#run-side")).to_contain_text("281,000 of 19.3 M")
    page.get_by_role("button", name="Sample now").click()
    expect(page.get_by_role("button", name="Sampling soon…")).to_be_visible()
    training.train(30)
    training.sample(40)
    training.finish()
    expect(page.locator("#run-progress")).to_contain_text("Trained 40 steps")
    expect(page.locator("#run-progress")).not_to_have_attribute("hx-trigger", re.compile(".*"))
    page.get_by_role("link", name="See the adapter").click()
    expect(page).to_have_url(re.compile(r"/adapters/chalk\?v=1$"))


def test_watching_goes_on_after_the_server_was_away(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    page.goto(f"/runs/{run.key}")
    page.route("**/live?*", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        training.train(10)
    page.unroute("**/live?*")
    expect(page.locator("#run-progress")).to_contain_text("Step 10 of 40")


def test_canceling_asks_first_because_nothing_is_kept(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    fake_workers.FakeTraining(live.state).train(10)
    page.goto(f"/runs/{run.key}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Canceling makes no adapter")).to_be_visible()
    page.get_by_role("button", name="Cancel this run").click()
    expect(page.locator("#run-head")).to_contain_text("Canceling…")
    with live.database.read() as session:
        assert service.get_run(session, run.key).cancel_requested


def test_canceling_a_run_that_waits_leaves_no_promise_on_its_page(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    page.goto(f"/runs/{run.key}")
    expect(page.locator("#run-samples")).to_contain_text("First come")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#run-samples")).to_contain_text("No samples were made.")
    expect(page.locator("#run-log")).to_contain_text("Canceled")
    expect(page.locator("#running")).to_be_empty()


def test_the_bar_of_a_phone_keeps_its_buttons_while_one_trains_and_one_waits(
    live: Live, page: Page
) -> None:
    dataset = fake_workers.dataset(live.state)
    fake_workers.queued_run(live.state, dataset)
    fake_workers.queued_run(live.state, dataset)
    fake_workers.FakeTraining(live.state).train(10)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/runs")
    expect(page.locator("#running")).to_contain_text("1 waiting")
    for name in ("Theme", "Keyboard shortcuts"):
        expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)


def test_samples_are_walked_with_the_arrow_keys_while_new_rows_come_in(
    live: Live, page: Page
) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(20)
    training.sample(0)
    training.sample(20)
    page.goto(f"/runs/{run.key}")
    page.locator("#sample-20-0").click()
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("Step 20 · seed 0")
    page.keyboard.press("ArrowRight")
    expect(viewer.get_by_role("heading")).to_have_text("a rocket")
    page.keyboard.press("c")
    expect(viewer).to_contain_text("Base model without the adapter · seed 1")
    page.keyboard.press("c")
    training.train(10)
    training.sample(30)
    expect(page.locator("#sample-30-1")).to_be_attached()
    page.keyboard.press("ArrowUp")
    expect(viewer).to_contain_text("Step 30 · seed 1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(viewer).to_contain_text("Base model without the adapter")
    page.keyboard.press("Escape")
    expect(page.locator("#sample-0-1")).to_be_focused()


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_of_a_run_is_wider_than_a_small_screen(live: Live, page: Page, width: int) -> None:
    prompts = [f"a very long prompt number {number} of a castle" for number in range(8)]
    run = fake_workers.queued_run(
        live.state, fake_workers.dataset(live.state), sample_prompts=prompts
    )
    training = fake_workers.FakeTraining(live.state)
    training.train(20)
    training.sample(20, prompts)
    page.set_viewport_size({"width": width, "height": 740})
    for address in (f"/runs/{run.key}", "/runs", "/train/new"):
        page.goto(address)
        too_wide = page.evaluate(
            "[...document.querySelectorAll('main, main .panel')]"
            ".filter((box) => box.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert too_wide == 0, address
