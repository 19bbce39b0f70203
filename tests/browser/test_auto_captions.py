"""Captions by a model, by keyboard: tried, requested, canceled, continued, applied, undone."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect
from sqlmodel import col, select

from app.registry.job_kinds.states import NOT_FINAL
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.browser.conftest import Live
from tests.browser.test_datasets import captions
from tests.caption_servers import CaptionServer, caption_server
from tests.io_workers import END_SECONDS, io_worker
from tests.worker.runtime.job_loops import wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    """A stand-in for an Ollama server that says the prompt."""
    with caption_server() as running:
        running.answer = lambda image, prompt: f"{prompt} in style"
        yield running


@pytest.fixture
def worker(app: FastAPI, live: Live, server: CaptionServer) -> Iterator[None]:
    """An io worker at work on a registry with a dataset of three images and that server."""
    update = {"ollama_url": server.url, "ollama_model": "llava"}
    state = dataclasses.replace(live.state, settings=live.settings.model_copy(update=update))
    app.state.brushwork = state
    fake_workers.dataset(state, "Boats")
    with io_worker(state):
        yield


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.usefixtures("worker")
def test_captions_are_tried_requested_applied_and_undone_by_keyboard(
    page: Page, live: Live, server: CaptionServer
) -> None:
    page.goto("/datasets/boats/captions/auto")
    results = page.locator("#results")
    expect(results.get_by_role("heading")).to_have_text("No captions requested yet")
    page.get_by_role("radio", name="Ollama server").focus()
    press(page, "ArrowUp")
    prompt = page.get_by_label("Prompt")
    expect(prompt).to_be_hidden()
    press(page, "ArrowDown", "Tab")
    expect(page.get_by_role("textbox", name="Model")).to_be_focused()
    press(page, "Tab", "Tab")  # past the link to the caption models
    expect(prompt).to_be_focused()
    press(page, "ControlOrMeta+a", "Delete")
    page.get_by_label("Try it on one image").focus()
    press(page, "Tab", "Enter")
    expect(page.locator("#field-prompt-error")).to_be_visible()
    expect(prompt).to_be_focused()
    page.keyboard.type("a red boat")
    page.get_by_label("Try it on one image").focus()
    press(page, "Tab", "Enter")
    expect(page.locator("#preview")).to_contain_text("a red boat")
    expect(page.locator("#preview")).to_contain_text("not named: style")
    expect(page.get_by_role("button", name="Preview")).to_be_focused()
    page.get_by_role("radio", name="Replace captions").focus()
    press(page, "Space")
    page.get_by_role("button", name="Write captions").focus()
    press(page, "Enter")
    boxes = results.get_by_role("checkbox")
    expect(boxes).to_have_count(3)
    expect(results.locator("ins").first).to_have_text("a red boat")
    boxes.first.focus()
    press(page, "Space")
    results.get_by_role("button", name="Apply the ticked").press("Enter")
    notice = page.get_by_role("button", name="Undo")
    expect(notice).to_be_visible()
    assert captions(live) == ["a fox", "a red boat", "a red boat"]
    expect(boxes).to_have_count(1)
    notice.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("2 captions restored.")
    assert captions(live) == ["a fox"] * 3
    assert server.prompts == ["a red boat"] * 4


@pytest.mark.usefixtures("worker")
def test_the_focus_stays_at_a_request_that_is_canceled_and_continued(
    page: Page, live: Live, server: CaptionServer
) -> None:
    def is_canceled() -> bool:
        with live.database.read() as session:
            return any(job.cancel_requested for job in session.exec(select(IoJob)))

    goes_on = threading.Event()

    def answer(image: object, prompt: str) -> str:
        if len(server.requests) > 1:
            goes_on.wait(END_SECONDS)
        return "a boat"

    server.answer, server.faults = answer, ["html"]
    page.goto("/datasets/boats/captions/auto")
    page.get_by_role("radio", name="Append to captions").check()
    page.get_by_role("button", name="Write captions").press("Enter")
    results = page.locator("#results")
    heading = results.get_by_role("heading")
    expect(results.get_by_role("status")).to_contain_text("1 of 3 images, 1 failed")
    fold = results.get_by_text("Images without a caption")
    fold.press("Enter")
    reason = results.get_by_text("answered with a web page")
    expect(reason).to_be_visible()
    results.get_by_role("button", name="Cancel").press("Enter")
    expect(results.get_by_role("button", name="Cancel")).to_be_focused()
    wait_for(is_canceled)
    goes_on.set()
    expect(results.get_by_role("status")).to_contain_text("Canceled")
    expect(heading).to_be_focused()
    expect(reason).to_be_visible()
    results.get_by_role("button", name="Continue with").press("Enter")
    expect(heading).to_have_text("3 proposals")
    expect(heading).to_be_focused()


@pytest.mark.usefixtures("worker")
def test_guesses_are_previewed_taken_and_undone_by_keyboard(page: Page, live: Live) -> None:
    page.goto("/datasets/boats/captions/auto")
    page.get_by_role("radio", name="Built in").check()
    page.get_by_role("radio", name="Replace captions").check()
    page.get_by_role("button", name="Write captions").press("Enter")
    chips = page.locator("#guesses .chip")
    expect(chips).to_have_count(3)
    above = page.get_by_label("Take all above")
    above.fill("0")
    above.press("Enter")
    expect(page.locator("#guesses ins")).to_have_count(3)
    assert captions(live) == ["a fox"] * 3
    name = page.locator("#guesses ins").first.inner_text()
    chips.first.press("Enter")
    expect(chips).to_have_count(2)
    heading = page.locator("#results-title")
    expect(heading).to_be_focused()
    expect(page.locator("#auto-written")).to_contain_text(name)
    assert sorted(captions(live)) == sorted(["a fox", "a fox", name])
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator("#auto-written")).to_have_count(0)
    assert captions(live) == ["a fox"] * 3
    above.fill("0")
    above.press("Enter")
    page.get_by_role("button", name="Write 2 captions").press("Enter")
    expect(chips).to_have_count(0)
    assert captions(live).count("a fox") == 1


def refresh_when_done(live: Live, part: Locator) -> None:
    """Press Refresh in a part of a page without scripts, once the worker has nothing to do."""

    def is_idle() -> bool:
        with live.database.read() as session:
            return not session.exec(select(IoJob).where(col(IoJob.status).in_(NOT_FINAL))).first()

    wait_for(is_idle)
    refresh = part.get_by_role("link", name="Refresh")
    if refresh.count():  # else it was done when the page came
        refresh.click()


@pytest.mark.usefixtures("worker")
def test_captions_are_requested_and_applied_without_scripts(chromium: Browser, live: Live) -> None:
    context = chromium.new_context(base_url=live.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/datasets/boats/captions/auto")
    page.get_by_label("Prompt").fill("an owl")
    page.get_by_role("button", name="Preview").click()
    preview = page.locator("#preview")
    refresh_when_done(live, preview)
    expect(preview).to_contain_text("an owl")
    page.get_by_role("radio", name="Replace captions").check()
    page.get_by_role("button", name="Write captions").click()
    results = page.locator("#results")
    refresh_when_done(live, results)
    results.get_by_role("button", name="Apply the ticked").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert captions(live) == ["an owl"] * 3
    context.close()
