"""The frequency of a page's requests: seldom while nothing changes, at once when it does."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect

from app.registry.job_kinds.states import JobStatus
from bench.pages import measure
from tests import fake_workers
from tests.app.adapters.test_pages import end_import
from tests.browser.conftest import Live
from tests.browser.test_adapters import lora

MOST_A_MINUTE = 30
STEP_MS = 500
HIDDEN = """
(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""


def requests_in_a_minute(page: Page) -> list[str]:
    """The addresses asked for during the next minute of the page's clock.

    The clock waits for the answers: a page whose question is open asks nothing new.
    """
    seen: list[Request] = []
    answered: list[Request] = []
    page.on("request", lambda request: seen.append(request))
    page.on("requestfinished", lambda request: answered.append(request))
    page.on("requestfailed", lambda request: answered.append(request))
    for _ in range(60_000 // STEP_MS):
        page.clock.run_for(STEP_MS)
        while set(seen) - set(answered):
            page.wait_for_timeout(5)
    return [request.url for request in seen]


def test_nothing_asks_more_than_thirty_times_a_minute(live: Live, page: Page) -> None:
    fake_workers.ready_base(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    fake_workers.FakeTraining(live.state).train(3)
    page.clock.install()
    page.goto("/play?prompt=a+castle")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    assert 10 < len(requests_in_a_minute(page)) <= MOST_A_MINUTE
    for address in (f"/runs/{run.key}", "/runs", "/", "/adapters"):
        page.goto(address)
        assert 3 < len(requests_in_a_minute(page)) <= MOST_A_MINUTE, address
    page.goto(f"/runs/{run.key}")
    page.evaluate(HIDDEN, True)
    assert len(requests_in_a_minute(page)) <= 6


def test_a_change_after_a_long_quiet_time_is_followed_quickly(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(10)
    page.clock.install()
    page.goto(f"/runs/{run.key}")
    expect(page.locator(".chart-loss canvas")).to_be_visible()
    quiet = requests_in_a_minute(page)
    training.train(1)
    page.clock.run_for(10_000)
    progress = page.locator("#run-progress")
    expect(progress).to_contain_text("Step 11 of 40")
    assert not [url for url in quiet if "/live" in url][12:]
    for step in (12, 13):
        training.train(1)
        page.clock.run_for(2_000)
        expect(progress).to_contain_text(f"Step {step} of 40")
    page.evaluate(HIDDEN, True)
    training.train(1)
    page.evaluate(HIDDEN, False)
    expect(progress).to_contain_text("Step 14 of 40")


def test_a_page_that_is_cut_off_says_so_after_two_polls_and_grays_what_is_old(
    live: Live, page: Page
) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(3)
    page.clock.install()
    page.goto(f"/runs/{run.key}")
    progress = page.locator("#run-progress")
    expect(progress).to_contain_text("Step 3 of 40")
    notice = page.locator(".toast", has_text="Not connected to Brushwork")
    lost = re.compile("/live")
    for answer in (lambda route: route.abort(), lambda route: route.fulfill(status=502)):
        page.route(lost, answer)
        page.clock.run_for(2_500)
        expect(notice).to_have_count(0)
        requests_in_a_minute(page)
        expect(notice).to_have_count(1)
        expect(page.locator(".toast")).to_have_count(1)
        expect(progress).to_have_attribute("data-stale", "")
        notice.get_by_role("button", name="Close").click()
        requests_in_a_minute(page)
        expect(notice).to_have_count(0)  # said once
        page.unroute(lost)
        page.clock.run_for(15_000)
        expect(progress).not_to_have_attribute("data-stale", "")
    training.train(1)
    page.clock.run_for(10_000)
    expect(progress).to_contain_text("Step 4 of 40")
    held: list[Route] = []  # a server that was killed: its socket takes requests meanwhile
    page.route(lost, lambda route: held.append(route))
    page.clock.run_for(40_000)
    expect(notice).to_have_count(1)
    for route in held:
        route.continue_()
    page.unroute(lost)
    expect(notice).to_have_count(0)


def test_the_table_of_the_chart_stays_open_and_focused_while_a_run_trains(
    live: Live, page: Page
) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    page.goto(f"/runs/{run.key}")
    summary = page.get_by_text("As a table")
    expect(summary).to_be_hidden()
    training.train(2)
    summary.click()
    table = page.locator("#loss-table")
    expect(table.get_by_role("row")).to_have_count(3)
    training.train(8)
    expect(table.get_by_role("row")).to_have_count(11)
    expect(summary).to_be_focused()
    expect(page.locator(".chart-loss .u-legend")).to_contain_text("Smoothed")
    assert page.evaluate("document.querySelectorAll('.chart .uplot').length") == 2


def test_an_answer_that_comes_after_its_part_was_replaced_is_dropped(
    live: Live, page: Page
) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    fake_workers.FakeTraining(live.state).train(10)
    held: list[Route] = []
    page.route("**/live?*", lambda route: held.append(route))
    with page.expect_request("**/live?*"):
        page.goto(f"/runs/{run.key}")
    page.get_by_role("button", name="Sample now").click()
    expect(page.get_by_role("button", name="Sampling soon…")).to_be_visible()
    with page.expect_request_finished(lambda request: "/live" in request.url):
        held[0].continue_()
    expect(page.get_by_role("button", name="Sampling soon…")).to_be_visible()


def test_the_files_of_a_large_import_share_the_requests(live: Live, page: Page) -> None:
    page.clock.install()
    page.goto("/adapters")
    files = [
        FilePayload(name=f"{n}.safetensors", mimeType="", buffer=lora()[:-1] + bytes([n]))
        for n in range(12)
    ]
    page.locator("#import-file").set_input_files(files)
    notices = page.locator("#imports .notice[data-poll]")
    expect(notices).to_have_count(12)
    # the clock runs ahead of the answers, and each answer slows one file down
    minutes = (len(requests_in_a_minute(page)) for _ in range(10))
    assert any(asked <= MOST_A_MINUTE for asked in minutes)
    assert len(requests_in_a_minute(page)) <= MOST_A_MINUTE
    end_import(live.state, JobStatus.FAILED, error="Not a LoRA.")
    for _ in range(6):
        page.clock.run_for(10_000)
    expect(notices).to_have_count(11)


def test_the_benchmark_of_pages_measures_what_the_browser_loads(
    chromium: Browser, live: Live
) -> None:
    figures = measure(chromium, live.url, "/play", watch_seconds=0.1)
    assert {"Document", "Stylesheet", "Script"} <= figures.bytes_by_type.keys()
    assert sum(figures.bytes_by_type.values()) < 150_000
    assert figures.html_bytes < figures.bytes_by_type["Document"]
    assert figures.elements > 100
