"""Adapters as a person meets them: find, import, change, undo, in a real browser."""

from __future__ import annotations

import json
import re
import struct

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect
from sqlmodel import select

from app.registry.adapters import service
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.renders.requests import RenderRequest
from app.registry.renders.service import create_render
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.app.adapters.test_pages import end_import
from tests.browser.boxes import boxes_of
from tests.browser.conftest import Live
from tests.costs import wide_but
from tests.images import make_png

pytestmark = pytest.mark.browser


def lora() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def test_searching_narrows_the_cards_and_stays_in_the_address(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state, "Chalk")
    fake_workers.adapter(live.state, "Night", trigger_word="nightboard")
    page.goto("/adapters")
    expect(page.locator(".adapter-card")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("nightb")
    expect(page.locator(".adapter-card")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=nightb"))
    expect(page.locator("#adapter-count")).to_contain_text("1 adapter found")
    page.reload()
    search = page.get_by_role("searchbox")
    expect(search).to_have_value("nightb")
    expect(page.get_by_role("link", name="Night", exact=True)).to_be_visible()
    search.fill("chalk")
    expect(page).to_have_url(re.compile("q=chalk"))
    expect(page.get_by_role("link", name="Night", exact=True)).to_have_count(0)
    search.fill("night")
    expect(page.get_by_role("link", name="Night", exact=True)).to_be_visible()
    page.go_back()
    expect(search).to_have_value("chalk")
    expect(page.get_by_role("link", name="Night", exact=True)).to_have_count(0)


def test_a_trigger_word_is_copied_and_a_star_set_without_leaving_the_list(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.goto("/adapters")
    page.get_by_role("button", name="chalkboard").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "chalkboard"
    page.get_by_role("button", name="Star Chalk").click()
    expect(page.get_by_role("button", name="Star Chalk")).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile("/adapters$"))


def test_dropped_files_are_imported_and_each_refusal_is_named(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state, "Ink", trigger_word="ink")
    page.goto("/adapters")
    page.locator("#import-file").set_input_files(
        [
            FilePayload(name="good.safetensors", mimeType="", buffer=lora()),
            FilePayload(name="bad.ckpt", mimeType="", buffer=b"\x80\x02c"),
        ]
    )
    imports = page.locator("#imports")
    expect(imports).to_contain_text("bad.ckpt was not imported.")
    expect(imports).to_contain_text("good.safetensors was uploaded and is waiting to be checked…")
    adapter = fake_workers.adapter(live.state)
    expect(page.locator("#results")).not_to_contain_text("Chalk")
    end_import(live.state, JobStatus.SUCCEEDED, result={"adapter_id": adapter.key})
    expect(page.locator("#results")).to_contain_text("Chalk")  # without a reload
    expect(page.locator("#adapter-count")).to_contain_text("2 adapters.")
    panel = page.get_by_role("region", name="Imports")
    expect(panel).to_contain_text("2 files: 1 imported, 1 not imported")
    expect(panel.get_by_role("status")).to_contain_text("Not imported: bad.ckpt")
    imports.get_by_role("link", name="Chalk").click()
    expect(page).to_have_url(re.compile("/adapters/chalk$"))


def test_one_image_that_is_dropped_leads_to_styles_like_it(live: Live, page: Page) -> None:
    page.goto("/adapters")
    page.evaluate("window.brushwork.addFiles([new File(['%PDF-1.7'], 'a.png')])")
    expect(page.locator("main")).to_contain_text("This is a PDF document")
    page.goto("/adapters")
    image = FilePayload(name="a.png", mimeType="image/png", buffer=make_png())
    page.get_by_label("Find styles like an image…").set_input_files(image)
    expect(page).to_have_url(re.compile(r"/style-searches/\d+"))
    expect(page.locator("#like")).to_contain_text("The image is being measured.")


def test_cancel_all_ends_what_waits_and_what_is_not_sent_yet(live: Live, page: Page) -> None:
    names = [f"{number}.safetensors" for number in range(8)]
    page.goto("/adapters")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/imports", hold)  # three uploads are on their way, five wait
    page.locator("#import-file").set_input_files(
        [FilePayload(name=name, mimeType="", buffer=lora()) for name in names]
    )
    panel = page.get_by_role("region", name="Imports")
    expect(panel).to_contain_text("8 files: 8 to go")
    panel.get_by_role("button", name="Cancel all").press("Enter")
    expect(panel).to_contain_text("8 files: 5 canceled, 3 to go")
    expect(panel.get_by_role("button", name="Cancel all")).to_be_focused()
    for route in held:
        route.continue_()
    expect(panel).to_contain_text("8 files: 8 canceled")
    expect(panel.get_by_role("button", name="Close")).to_be_focused()
    with live.database.read() as session:
        found = session.exec(select(IoJob).where(IoJob.kind == JobKind.IMPORT_ADAPTER)).all()
    assert [job.status for job in found] == [JobStatus.CANCELED] * 3


def test_notes_save_themselves_and_say_so(live: Live, page: Page) -> None:
    adapter = fake_workers.adapter(live.state)
    page.goto("/adapters/chalk")
    page.get_by_role("link", name="Edit").press("Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.get_by_label("Notes").fill("Best at 0.8.")
    expect(page.locator("#about-state")).to_have_text("Saved")
    with live.database.read() as session:
        assert service.get_adapter(session, adapter.key).notes == "Best at 0.8."
    page.get_by_label("Name", exact=True).fill("")
    page.get_by_label("Notes").focus()
    expect(page.locator("#about-state")).to_contain_text("Not saved. An adapter needs a name.")
    page.get_by_label("Name", exact=True).fill("Chalk two")
    page.get_by_role("button", name="Done").press("Enter")
    expect(page.get_by_role("link", name="Edit")).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text("Chalk two")
    page.locator("#lead-2").press("Enter")
    expect(page.locator("#lead-2")).to_have_attribute("aria-current", "true")
    expect(page.locator("#lead-2")).to_be_focused()
    page.get_by_role("button", name="Set as cover").press("Enter")
    expect(page.locator("#lead-cover")).to_have_text("Cover")
    expect(page.locator("#lead-cover")).to_be_focused()


def test_the_menu_of_an_image_works_by_keyboard_and_keeps_the_focus(live: Live, page: Page) -> None:
    adapter = fake_workers.adapter(live.state)
    with live.database.write() as session:
        for seed in (1, 2):
            request = RenderRequest(
                prompt=f"a fox, {seed}", seed=seed, adapters=[fake_workers.weighted(adapter.key)]
            )
            create_render(session, request, live.state.store)
    fake_workers.draw(live.state)
    page.goto("/adapters/chalk")
    tiles = page.locator(".gallery .shot")
    expect(tiles).to_have_count(2)
    opener = tiles.first.locator("summary")
    expect(opener).to_have_accessible_name("Actions: a fox, 2")
    hide = tiles.first.get_by_role("button", name="Hide")
    expect(hide).to_be_hidden()
    opener.press("Enter")
    page.keyboard.press("Tab")
    expect(tiles.first.get_by_role("button", name="Set as cover")).to_be_focused()
    page.keyboard.press("Escape")
    expect(hide).to_be_hidden()
    expect(opener).to_be_focused()
    opener.press("Enter")
    hide.press("Enter")
    expect(page.get_by_text("The image is hidden.")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    expect(page.locator(".gallery .shot")).to_have_count(1)


@pytest.mark.parametrize("width", [360, 959, 1200])
def test_facts_and_versions_come_before_the_images_in_one_column(
    live: Live, page: Page, width: int
) -> None:
    fake_workers.adapter(live.state)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/adapters/chalk")
    places = ["#usual-weight", "#facts-title", "#versions-title", "#renders-title", "#use-title"]
    heights = [box["y"] for box in boxes_of(*(page.locator(place) for place in places))]
    if width < 960:
        assert heights == sorted(heights)
    else:  # beside the cover
        assert heights[1] < heights[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_deleted_adapter_comes_back_with_undo(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/adapters/chalk")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("“Chalk” was deleted.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Chalk")


@pytest.mark.parametrize("width", wide_but([360, 768, 1440], 360))
def test_a_long_name_and_the_list_of_formats_fit_the_window(
    live: Live, page: Page, width: int
) -> None:
    adapter = fake_workers.adapter(live.state, "C" * 120, trigger_word="a long chalkboard trigger")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/adapters")
    star, card = boxes_of(page.locator(".star"), page.locator(".card"))
    assert star["x"] + star["width"] <= card["x"] + card["width"]
    page.goto(f"/adapters/{adapter.slug}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Other formats").click()
    box = page.locator(".downloads-list").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
