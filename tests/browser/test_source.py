"""An image to start from, as a person gives it to the playground in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from app.registry.renders import service
from tests import fake_workers
from tests.browser.conftest import Live
from tests.images import make_png

pytestmark = pytest.mark.browser

GIVE = """([kind, png]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(png)], "a.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const panel = document.getElementById("source");
  panel.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
}"""


def test_an_image_is_dropped_changed_with_the_arrow_keys_and_removed(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    panel = page.get_by_role("region", name="Image to start from")
    page.evaluate(GIVE, ["drop", list(make_png(1, (200, 100)))])
    expect(panel).to_contain_text("200 × 100")
    expect(page.locator("#source-told")).to_have_text("Starts from the image that you chose.")
    expect(page.locator("#recall-told")).to_be_empty()  # no settings are looked for in it
    expect(page).to_have_url(re.compile(r"seed=7&source=[0-9a-f]{64}$"))
    slider = panel.get_by_role("slider", name="Strength")
    expect(slider).to_be_focused()
    slider.press("ArrowLeft")
    expect(panel.get_by_label("Strength", exact=True)).to_have_value("0.55")
    expect(page.locator("#result")).to_contain_text("Original")
    expect(page).to_have_url(re.compile(r"&strength=0\.55$"))
    with live.database.read() as session:
        draft = service.get_render(session, 2)
    assert (draft.strength, draft.draft_slot is not None, draft.width > draft.height) == (
        0.55,
        True,
        True,
    )
    page.evaluate(GIVE, ["paste", list(make_png(2, (90, 60)))])
    expect(panel).to_contain_text("90 × 60")
    panel.get_by_label("Strength", exact=True).press("ArrowUp")
    expect(panel.get_by_label("Strength", exact=True)).to_have_value("0.56")
    page.evaluate(GIVE, ["drop", [1, 2, 3]])
    expect(panel.get_by_role("alert")).to_contain_text("This is not an image")
    expect(panel).to_contain_text("90 × 60")
    panel.get_by_role("button", name="Remove the image to start from").click()
    expect(slider).to_have_count(0)
    expect(panel.locator("summary")).to_be_focused()
    expect(page).not_to_have_url(re.compile("source="))


def test_a_redraw_that_is_answered_too_late_does_not_bring_the_image_back(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    page.evaluate(GIVE, ["drop", list(make_png(1))])
    held: list[Route] = []
    page.route("**/play/live", lambda route: held.append(route))
    with page.expect_request("**/play/live"):
        page.get_by_role("slider", name="Strength").press("ArrowLeft")
    page.get_by_role("button", name="Remove the image to start from").click()
    expect(page).not_to_have_url(re.compile("source="))
    with page.expect_response("**/play/live"):
        held[0].continue_()
    page.unroute("**/play/live")
    page.get_by_role("slider", name="Weight of Chalk").press("ArrowRight")
    expect(page).to_have_url(re.compile(r"chalk%3A0\.55&prompt=a\+castle&seed=7$"))
    with live.database.read() as session:
        late, redraw = service.get_render(session, 2), service.get_render(session, 4)
    assert (late.strength, redraw.strength) == (0.55, None)
