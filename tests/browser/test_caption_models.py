"""Caption models, by keyboard: added, followed, mended, chosen for a dataset, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.registry.added_models import service as added_models
from app.registry.caption_models.service import CAPTION_MODELS
from tests import fake_workers
from tests.browser.conftest import Live
from tests.caption_folders import blip_folder
from tests.io_workers import io_worker
from tests.worker.runtime.job_loops import wait_for
from tests.worker.runtime.local_captions.test_captioner import STAND_IN
from worker.runtime.local_captions import captioner

pytestmark = pytest.mark.browser


@pytest.fixture
def worker(live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An io worker whose models are stand-ins that say their device, and a dataset."""
    monkeypatch.setattr(captioner, "COMMAND", STAND_IN)
    fake_workers.dataset(live.state, "Boats")
    with io_worker(live.state):
        yield


@pytest.mark.usefixtures("worker")
def test_a_model_is_added_mended_used_and_removed_by_keyboard(page: Page, tmp_path: Path) -> None:
    page.goto("/datasets/boats/captions/auto")
    page.get_by_role("link", name="add a caption model").press("Enter")
    expect(page.get_by_role("heading", name="No caption models yet")).to_be_visible()
    source = page.get_by_label("Name on the Hub, or path on this machine")
    source.fill(str(tmp_path / "blip"))
    source.press("Enter")
    expect(page.locator("#source-error")).to_contain_text("does not exist")
    (tmp_path / "blip").mkdir()
    source.press("Enter")
    models = page.locator("#models")
    expect(models).to_contain_text("Failed")
    expect(models).to_contain_text("has no config.json")
    (tmp_path / "blip").rmdir()
    blip_folder(tmp_path)
    models.get_by_role("button", name="Check again").press("Enter")
    expect(models).to_contain_text("Ready")

    page.goto("/datasets/boats/captions/auto")
    page.get_by_role("radio", name="Built in").focus()
    page.keyboard.press("ArrowDown")  # from file names
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="BLIP on this machine")).to_be_checked()
    expect(page.get_by_label("Prompt", exact=True)).to_be_hidden()
    page.get_by_label("Try it on one image").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#preview")).to_contain_text("on auto")  # what the stand-in was asked for

    page.get_by_role("link", name="Caption models").first.press("Enter")
    models.get_by_role("button", name="Remove blip").press("Enter")
    page.keyboard.press("Tab")
    expect(models.get_by_role("button", name="Remove", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No caption models yet")).to_be_visible()
    assert (tmp_path / "blip" / "config.json").is_file()


def test_a_model_is_added_and_removed_without_scripts(
    chromium: Browser, live: Live, tmp_path: Path
) -> None:
    context = chromium.new_context(base_url=live.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/caption-models")
    page.get_by_label("Name on the Hub").fill(str(blip_folder(tmp_path)))
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#models")).to_contain_text("Checking")
    with io_worker(live.state):
        wait_for(lambda: is_ready(live))
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("#models")).to_contain_text("Ready")
    page.get_by_role("button", name="Remove blip").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_role("heading", name="No caption models yet")).to_be_visible()
    context.close()


def is_ready(live: Live) -> bool:
    with live.database.read() as session:
        models = added_models.list_models(session, CAPTION_MODELS)
    return [model.status for model in models] == ["ready"]
