"""The viewer of the REST API in a real browser, under the content policy of every page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect

from app.registry.datasets import service as datasets
from tests.browser.boxes import boxes_of
from tests.browser.conftest import Live
from tests.costs import wide_but
from tests.images import make_png


@pytest.fixture
def console(context: BrowserContext) -> list[str]:
    """All that the pages write to the console; `context` fails on policy errors itself."""
    messages: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        messages.append(message.text)

    context.on("console", listen)
    return messages


OPENED = (
    "runs-createRun",
    "files-downloadAdapter",
    "imports-importAdapter",
    "datasets-uploadImages",
)
"""Operations with JSON and with files, both ways."""


@pytest.mark.usefixtures("few_operations")
def test_operations_open_and_a_request_is_sent_without_an_error(
    page: Page, live: Live, console: list[str], tmp_path: Path
) -> None:
    with live.database.write() as session:
        datasets.create_dataset(session, "Ink")
    page.goto("/docs")
    for name in OPENED:
        page.locator(f"#operations-{name} .opblock-summary-control").click()
        expect(page.locator(f"#operations-{name}")).to_contain_text("Responses")
    expect(page.locator("[data-api-list]")).to_be_hidden()

    # An upload is tried out for real.
    upload = page.locator(f"#operations-{OPENED[-1]}")
    upload.get_by_role("button", name="Try it out").click()
    upload.get_by_placeholder("dataset_id").fill("1")
    picture = tmp_path / "fox.png"
    picture.write_bytes(make_png())
    upload.locator("input[type=file]").set_input_files(picture)
    upload.get_by_role("button", name="Execute").click()
    expect(upload.locator(".responses-table.live-responses-table")).to_contain_text("fox.png")
    expect(upload.locator(".curl-command")).to_contain_text("curl -X 'POST'")
    assert console == []


def test_it_is_filtered_and_opened_by_keyboard_in_both_themes(
    page: Page, console: list[str]
) -> None:
    page.goto("/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.keyboard.press("/")
    field = page.get_by_label("Filter operations")
    expect(field).to_be_focused()
    field.press_sequentially("cancel run_id")
    expect(page.locator(".opblock")).to_have_count(1)
    summary = page.locator("#operations-runs-cancelRun .opblock-summary-control")
    for _ in range(5):
        page.keyboard.press("Tab")
        if summary.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.locator("#operations-runs-cancelRun")).to_contain_text("Canceling twice")

    for theme, dark in (("Dark", True), ("Light", False)):
        page.get_by_role("button", name="Theme").click()
        page.get_by_role("button", name=theme, exact=True).click()
        assert page.evaluate("document.documentElement.matches('.dark-mode')") is dark
    assert console == []


@pytest.mark.usefixtures("few_operations")
@pytest.mark.parametrize("width", wide_but([360, 1440], 360))
def test_a_link_opens_its_operation_and_nothing_is_wider_than_the_window(
    page: Page, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/docs#/runs/createRun")
    opened = page.locator("#operations-runs-createRun.is-open")
    expect(opened.get_by_text("Queue a training run")).to_be_in_viewport()
    expect(opened.locator(".responses-table")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    bar, box = boxes_of(page.locator(".bar"), opened)
    assert box["y"] >= bar["y"] + bar["height"]
    assert box["x"] + box["width"] <= width
