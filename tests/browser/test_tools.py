"""The tools and base models as a person meets them, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


def test_a_refused_fuse_stays_open_and_is_mended_where_it_is_wrong(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state, "Chalk")
    fake_workers.adapter(live.state, "Night")
    page.goto("/adapters/chalk/tools")
    page.get_by_text("Fuse into a base model").click()
    form = page.locator("#tool-fuse")
    form.get_by_text("One more adapter").first.click()
    form.get_by_label("Another adapter").first.fill("nobody")
    form.get_by_text("Text encoder: same weight").first.click()
    form.get_by_label("Text encoder weight").first.fill("0.25")
    form.get_by_role("button", name="Fuse").click()
    expect(page.locator("#tool-fuse-other-1-error")).to_be_visible()
    expect(form.get_by_label("Another adapter").first).to_be_focused()
    expect(form.get_by_label("Text encoder weight").first).to_have_value("0.25")
    form.get_by_label("Another adapter").first.fill("night")
    form.get_by_role("button", name="Fuse").click()
    expect(form.locator("[id^=tool-job]")).to_contain_text("waiting for a worker")
    expect(page.locator("#tool-fuse-other-1-error")).to_have_count(0)
    expect(form.get_by_label("Another adapter").first).to_have_value("night")
    with live.database.read() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "fuse_adapter")).one()
    assert [part["slug"] for part in job.args["parts"]] == ["chalk", "night"]


def test_adapters_are_chosen_by_name_and_the_merge_appears_in_view(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state, "Chalk")
    fake_workers.adapter(live.state, "Open emoji", trigger_word="omoji")
    page.goto("/adapters/chalk/tools")
    page.locator("#tool-merge > summary").press("Enter")
    form = page.locator("#tool-merge")
    other = form.get_by_label("Another adapter")
    expect(other).to_have_count(5)
    expect(form.get_by_label("Another adapter").locator("visible=true")).to_have_count(1)
    for method, fields in (("linear", 0), ("svd", 1), ("ties", 2), ("dare", 3), ("linear", 0)):
        form.get_by_label("Method").select_option(method)
        shown = form.locator("#tool-rank, #tool-density, #tool-seed").locator("visible=true")
        expect(shown).to_have_count(fields)
    form.get_by_role("button", name="Choose adapter 2").click()
    page.get_by_role("searchbox").fill("emoji")
    page.get_by_role("button", name="Add Open emoji").click()
    expect(other.first).to_have_value("Open emoji")
    expect(form.get_by_role("button", name="Choose adapter 2")).to_be_focused()
    form.get_by_role("button", name="Merge", exact=True).click()
    job = form.locator("[id^=tool-job]")
    expect(job).to_be_focused()
    expect(job).to_be_in_viewport()
    expect(other.first).to_have_value("Open emoji")


def test_a_base_model_is_removed_after_a_question(live: Live, page: Page) -> None:
    row = BaseModel(slug="own", name="own", source="/models/own", status=ModelStatus.READY)
    with live.database.write() as session:
        session.add(row)
    page.goto("/base-models")
    page.get_by_role("button", name="Remove own").click()
    question = page.locator("[popover]", has_text="Remove “own”?")
    expect(question).to_contain_text("its files stay where they are")
    question.get_by_role("button", name="Keep it").click()
    expect(question).to_be_hidden()
    page.get_by_role("button", name="Remove own").click()
    question.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("#models tbody tr")).to_have_count(1)


def test_an_import_from_the_hub_is_canceled_where_it_was_asked_for(live: Live, page: Page) -> None:
    page.goto("/adapters")
    page.get_by_text("From the Hub…").click()
    page.get_by_label("Adapter on the Hugging Face Hub").fill("acme/ink")
    page.get_by_role("button", name="Import", exact=True).click()
    answer = page.locator("#hub-imports")
    expect(answer).to_contain_text("acme/ink is being downloaded")
    answer.get_by_role("button", name="Cancel").click()
    expect(answer).to_contain_text("Canceled. acme/ink was not imported.")
