"""Presets of one's own, saved from the form of a new run, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from app.registry.runs.own_presets import list_presets
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


def test_enter_in_the_name_of_a_preset_saves_it_and_starts_nothing(live: Live, page: Page) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state)
    page.goto("/train/new?preset=quick")
    page.get_by_text("Advanced").click()
    page.get_by_label("Steps", exact=True).fill("30")
    page.get_by_text("Save as a preset").click()
    name = page.get_by_label("Name of the preset")
    name.press("Enter")
    expect(name).to_have_accessible_description(re.compile("Enter a name"))
    name.fill("Soft")
    expect(page.locator("#preset_name-error")).to_be_empty()
    name.press("Enter")
    expect(page.locator("#save-preset").get_by_role("status")).to_be_focused()
    expect(page.get_by_role("radio", name="Soft")).to_be_checked()
    expect(page.locator("#steps")).to_have_value("30")
    with live.database.read() as session:
        assert [row.name for row in list_presets(session)] == ["Soft"]
        assert session.exec(select(Run)).all() == []


def test_a_sweep_is_planned_from_the_form_and_back_loses_nothing(live: Live, page: Page) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state, pictures=12)
    page.goto("/train/new?preset=quick")
    page.locator("#name").fill("Soft ink")
    page.get_by_role("button", name="Sweep: which settings are better?").click()
    page.get_by_label("Setting").first.select_option("rank")
    page.get_by_label("Values").first.fill("2, 4")
    page.get_by_role("button", name="What does it cost?").click()
    expect(page.get_by_role("status").first).to_contain_text("Rank of Soft ink: 6 runs")
    page.get_by_role("button", name="Back").click()
    expect(page.locator("#name")).to_have_value("Soft ink")
