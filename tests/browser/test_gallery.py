"""The gallery in a real browser: choose by mouse and keys, delete, undo, download, compare."""

from __future__ import annotations

import re
import zipfile

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests import fake_workers
from tests.browser.conftest import Live

pytestmark = pytest.mark.browser


def test_images_are_chosen_starred_deleted_downloaded_and_compared(live: Live, page: Page) -> None:
    adapter = fake_workers.adapter(live.state)
    with httpx.Client(base_url=live.url) as client:
        for number in range(5):
            body = {"prompt": f"fox {number}", "adapters": [{"id": adapter.key, "weight": number}]}
            client.post("/api/v1/renders", json=body)
    fake_workers.draw(live.state)
    page.goto("/play?prompt=fox")
    places = page.get_by_role("navigation", name="Playground")
    for name in ("Grids", "Recipes", "Gallery"):
        places.get_by_role("link", name=name).click()
        expect(places.locator("[aria-current=page]")).to_have_text(name)
    back = places.get_by_role("link", name="Try")
    expect(back).to_have_attribute("href", re.compile(r"/play\?prompt=fox$"))
    boxes, tiles = page.get_by_role("checkbox", name=re.compile("^Choose")), page.locator(".shot")
    count, delete = page.locator("[data-chosen-count]"), page.locator("#chosen .danger")
    expect(tiles).to_have_count(5)
    expect(delete).to_be_disabled()
    boxes.nth(1).check()
    boxes.nth(3).click(modifiers=["Shift"])
    expect(count).to_have_text("3 chosen")
    page.keyboard.press("Control+a")
    expect(count).to_have_text("5 chosen")
    page.keyboard.press("Escape")
    expect(count).to_have_text("Choose images.")

    boxes.nth(0).check()
    boxes.nth(1).check()
    delete.click()
    expect(tiles).to_have_count(3)
    toast = page.locator(".toast")
    expect(toast).to_contain_text("2 images were deleted.")
    expect(toast.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(tiles).to_have_count(5)
    expect(toast).to_have_count(0)
    expect(page.locator("#content")).to_be_focused()  # what had the focus is gone

    star = page.get_by_role("button", name="Star image 5")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Search images").fill("fox 3")
    expect(tiles).to_have_count(1)
    expect(page).to_have_url(re.compile(r"q=fox(\+|%20)3"))
    page.get_by_role("link", name="Clear all").click()
    expect(tiles).to_have_count(5)

    boxes.nth(0).check()
    boxes.nth(4).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="ZIP").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["brushwork-5.png", "brushwork-1.png"]
    page.get_by_role("button", name="Compare").click()
    expect(page).to_have_url("/renders/compare?a=1&b=5")
    page.wait_for_load_state()  # keys are heard by scripts
    page.get_by_role("radio", name="Flicker").check()
    page.keyboard.press("f")
    expect(page.get_by_role("img", name="fox 4, Chalk 4.00")).to_be_visible()
    expect(page.get_by_role("img", name="fox 0, Chalk 0.00")).to_be_hidden()
