"""Datasets as a person meets them: drop, choose, write captions, undo, all in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image as Picture
from playwright.sync_api import BrowserContext, FilePayload, Page, expect

from app.registry.datasets import service
from app.registry.datasets.image_captions.changes import CaptionChange, change_caption
from app.registry.datasets.new_images import NewImage
from app.web.datasets import listing_view
from tests.browser.boxes import box_of, boxes_of
from worker.core.words import CaptionKind

pytestmark = pytest.mark.browser

DROP = """
(files) => {
  const transfer = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const name of ["dragenter", "drop"]) {
    document.body.dispatchEvent(new DragEvent(name, options));
  }
}
"""


def png(shade: int, size: int = 80) -> bytes:
    buffer = io.BytesIO()
    Picture.new("RGB", (size, size), (shade, 40, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def payload(name: str, content: bytes, mime: str = "image/png") -> FilePayload:
    return FilePayload(name=name, mimeType=mime, buffer=content)


def expect_page(page: Page, heading: str) -> None:
    """Wait until a page that a click or key opened is there, and its scripts with it."""
    expect(page.locator("h1")).to_have_text(heading)
    page.wait_for_load_state()


@pytest.fixture
def dataset(live, tmp_path: Path) -> str:
    """The address of a dataset with three pictures, the last without a caption."""
    with live.database.write() as session:
        row = service.create_dataset(session, "Boats", trigger_word="boatish")
        service.add_images(
            session,
            row.key,
            [stored_image(live, n, c) for n, c in ((1, "one"), (2, "two"), (3, ""))],
        )
    return f"/datasets/{row.slug}"


def stored_image(live, number: int, caption: str) -> NewImage:
    blob = live.state.store.put_bytes(png(number))
    return NewImage(
        filename=f"boat-{number}.png",
        sha256=blob.sha256,
        clean_sha256=blob.sha256,
        thumbnail_sha256=blob.sha256,
        width=80,
        height=80,
        size_bytes=blob.size,
        caption=caption,
    )


def long_dataset(live, count: int) -> str:
    """The address of a dataset with this many pictures without captions."""
    with live.database.write() as session:
        row = service.create_dataset(session, "Boats")
        new = stored_image(live, 1, "")
        images = [
            dataclasses.replace(new, filename=f"{number}.png", sha256=f"{number:064x}")
            for number in range(count)
        ]
        service.add_images(session, row.key, images)
    return f"/datasets/{row.slug}"


def captions(live) -> list[str]:
    with live.database.read() as session:
        row = service.dataset_by_slug(session, "boats")
        return [image.caption for image in service.list_images(session, row.key)]


def choose(page: Page, files: Sequence[FilePayload]) -> None:
    page.locator("[data-upload-input]").set_input_files(list(files))


def test_chosen_pictures_appear_with_the_captions_beside_them(page: Page, dataset: str) -> None:
    page.goto(dataset)
    choose(page, [payload("new.png", png(9)), payload("new.txt", b"a new boat", "text/plain")])
    tile = page.locator(".tile").nth(3)
    expect(tile.get_by_role("textbox")).to_have_value("a new boat")
    expect(page.locator("#dataset-filters")).to_contain_text("All 4")
    expect(page.locator("#toasts")).to_contain_text("1 image added")


def test_findings_follow_what_is_typed(page: Page, dataset: str) -> None:
    page.goto(dataset)
    findings = page.locator("#checks")
    expect(findings).to_contain_text("2 captions lack the trigger word")
    page.get_by_role("textbox", name="Caption of boat-1.png").fill("one, boatish")
    expect(findings).to_contain_text("1 caption lacks the trigger word", timeout=20_000)


def test_findings_of_an_empty_dataset_come_with_its_first_images(page: Page, live) -> None:
    page.goto(long_dataset(live, 0))
    expect(page.locator("#checks")).to_be_hidden()
    choose(page, [payload("new.png", png(9))])
    expect(page.locator("#checks")).to_contain_text("1 image has no caption")


def test_a_refused_file_is_named_with_its_reason_and_the_others_are_taken(
    page: Page, dataset: str
) -> None:
    page.goto(dataset)
    choose(
        page,
        [
            payload("notes.png", b"<html>not a picture</html>"),
            payload("good.png", png(8)),
            payload("boat-1-again.png", png(1)),
        ],
    )
    panel = page.locator("[data-upload-panel]")
    expect(panel.locator("[data-refused]")).to_contain_text("notes.png")
    expect(panel.locator("[data-upload-summary]")).to_have_text(
        "1 image added · 1 image already here · 1 not added"
    )
    expect(page.locator(".tile")).to_have_count(4)


def test_pictures_dropped_on_the_list_begin_a_dataset(page: Page, live) -> None:
    page.goto("/datasets")
    files = [[f"b{n}.png", "image/png", base64.b64encode(png(n)).decode()] for n in (1, 2)]
    page.evaluate(DROP, files)
    page.wait_for_url("**/datasets/new-dataset")
    expect(page.locator(".tile")).to_have_count(2)


def test_an_archive_dropped_on_the_list_names_the_dataset(page: Page, live) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1.png", png(1))
        archive.writestr("1.txt", "first")
    page.goto("/datasets")
    content = base64.b64encode(buffer.getvalue()).decode()
    page.evaluate(DROP, [["harbor_lights.zip", "application/zip", content]])
    page.wait_for_url("**/datasets/harbor-lights")
    expect(page.locator("h1")).to_have_text("harbor lights")
    expect(page.get_by_role("textbox", name="Caption of 1.png")).to_have_value("first")


def test_the_upload_of_a_new_dataset_takes_the_place_of_its_form(page: Page, dataset: str) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto("/datasets")
    page.locator("[data-open]").first.click()
    page.get_by_label("Name", exact=True).fill("Harbor")
    page.locator("#new-files").set_input_files([payload("broken.png", b"nope")])
    create = page.get_by_role("button", name="Create")
    create.press("Enter")
    panel = page.get_by_role("region", name="Uploads")
    expect(panel).to_be_focused()
    expect(panel).to_contain_text("1 not added")
    expect(panel).to_be_in_viewport()
    expect(create).not_to_be_visible()
    page.locator("[data-open]").first.click()  # another one gets its own files
    page.get_by_label("Name", exact=True).fill("Pier")
    page.locator("#new-files").set_input_files([payload("pier.png", png(5))])
    create.press("Enter")
    page.wait_for_url("**/datasets/pier")
    expect(page.locator(".tile")).to_have_count(1)


def test_an_archive_counts_its_images_and_can_be_canceled(
    page: Page, live, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third image waits in the decoder until the test has seen the count and canceled."""
    decode, canceled, sent = live.state.decoder.decode, threading.Event(), itertools.count(1)

    def wait_at_the_third(*paths: Path) -> object:
        if next(sent) >= 3:
            assert canceled.wait(timeout=60)
        return decode(*paths)

    monkeypatch.setattr(live.state.decoder, "decode", wait_at_the_third)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(4, 10):
            archive.writestr(f"{number}.png", png(number))
    page.goto(dataset)
    choose(page, [payload("more.zip", buffer.getvalue(), "application/zip")])
    panel = page.locator("[data-upload-panel]")
    expect(panel.locator(".upload-list")).to_contain_text("Image 2 of 6: 5.png")
    expect(panel.locator("[data-upload-summary]")).to_contain_text("Uploading, 4 images to go")
    said = page.locator("[data-upload-said]")
    expect(said).to_have_text("30 % uploaded")
    panel.get_by_role("button", name="Cancel").press("Enter")
    canceled.set()
    expect(panel.locator("[data-upload-summary]")).to_have_text(
        "Canceled: more.zip: 2 of 6 images were checked, and stay"
    )
    expect(said).to_contain_text("2 of 6 images were checked, and stay")
    expect(panel.get_by_role("link", name="Show all images")).to_be_focused()
    for thread in threading.enumerate():
        if thread.name == "upload":
            thread.join(timeout=60)
    panel.get_by_role("link", name="Show all images").click()
    expect(page.get_by_role("textbox", name="Caption of 5.png")).to_be_visible()


def test_a_caption_saves_itself_and_says_so(page: Page, live, dataset: str) -> None:
    page.goto(dataset)
    field = page.get_by_role("textbox", name="Caption of boat-3.png")
    state = page.locator(".tile").nth(2).locator("[data-state]")
    expect(state).to_have_text("No caption")
    field.press_sequentially("a red boat")
    expect(state).to_have_text("Saved")
    expect(page.locator('[data-count="uncaptioned"]')).to_have_text("0")
    assert captions(live) == ["one", "two", "a red boat"]
    page.reload()
    expect(field).to_have_value("a red boat")
    expect(state).to_have_text("")  # no news on every tile


def test_a_caption_is_not_lost_when_the_server_cannot_be_reached(
    page: Page, context: BrowserContext, live, dataset: str
) -> None:
    page.goto(dataset)
    field = page.get_by_role("textbox", name="Caption of boat-3.png")
    state = page.locator(".tile").nth(2).locator("[data-state]")
    context.set_offline(True)
    field.fill("typed in a tunnel")
    expect(state.get_by_role("button", name="Retry")).to_be_visible()
    assert captions(live)[2] == ""
    context.set_offline(False)
    expect(state).to_have_text("Saved")
    assert captions(live)[2] == "typed in a tunnel"


def test_two_browsers_on_one_caption_are_both_heard(
    page: Page, context: BrowserContext, live, dataset: str
) -> None:
    other = context.new_page()
    for tab in (page, other):
        tab.goto(dataset)
    name = "Caption of boat-1.png"
    page.get_by_role("textbox", name=name).fill("from here")
    expect(page.locator(".tile").first.locator("[data-state]")).to_have_text("Saved")
    other.get_by_role("textbox", name=name).fill("from there")
    tile = other.locator(".tile").first
    expect(tile).to_contain_text("Theirs: “from here”")
    assert captions(live)[0] == "from here"
    tile.get_by_role("button", name="Keep mine").click()
    expect(tile.locator("[data-state]")).to_have_text("Saved")
    expect(other.get_by_role("textbox", name=name)).to_have_value("from there")
    assert captions(live)[0] == "from there"


def test_ctrl_and_arrows_go_from_caption_to_caption(page: Page, dataset: str) -> None:
    page.goto(dataset)
    page.get_by_role("textbox", name="Caption of boat-1.png").focus()
    page.keyboard.press("Control+ArrowRight")
    expect(page.get_by_role("textbox", name="Caption of boat-2.png")).to_be_focused()
    page.keyboard.press("Control+ArrowLeft")
    expect(page.get_by_role("textbox", name="Caption of boat-1.png")).to_be_focused()


def test_the_page_of_an_image_by_keyboard(page: Page, live, dataset: str) -> None:
    with live.database.write() as session:
        first = service.list_images(session, 1)[0]
        first.width = 240  # so that a part of it is cropped
        session.add(first)
        change_caption(session, 2, CaptionKind.TAGS, CaptionChange("sea, sailboat"))
    page.goto(dataset)
    page.locator(".tile-picture").first.click()
    expect_page(page, "boat-1.png")

    handle = page.get_by_role("slider", name="Focus point of the crop")
    handle.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(handle).to_have_attribute("aria-valuetext", "39 % from the left, 50 % from the top")
    expect(page.locator("[data-focus-state]")).to_have_text(
        "Saved: 39 % from the left, 50 % from the top."
    )
    box = box_of(handle.locator(".focus-dot"))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 2_000, box["y"])  # stays inside of the image
    page.mouse.up()
    expect(page.locator("[data-focus-state]")).to_contain_text("Saved: 0 % from the left")

    box = box_of(handle.locator(".focus-dot"))
    finger = page.context.new_cdp_session(page)
    kinds = ["touchStart", *8 * ["touchMove"], "touchEnd"]
    for step, kind in enumerate(kinds):  # far enough that the page would scroll instead
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        place = {"x": middle[0] + 4 + step * 10, "y": middle[1] + step * 10}
        points = [] if kind == "touchEnd" else [place]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    left = box_of(handle.locator(".focus-dot"))
    assert 70 < left["x"] - box["x"] < 90
    expect(page.locator("[data-focus-state]")).not_to_contain_text("Saved: 0 %")
    page.get_by_label("Left, %").fill("0")
    page.get_by_label("Top, %").fill("50")
    page.keyboard.press("Enter")
    expect(page.locator("[data-focus-state]")).to_contain_text("Saved: 0 % from the left, 50 %")

    field = page.get_by_role("textbox", name="Long")
    field.fill("a boat, sai")
    expect(page.get_by_role("option", name="sailboat")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(field).to_have_value("a boat, sailboat")
    page.keyboard.type(", s")
    offered = page.locator("#completions [role=option]")
    expect(offered).to_have_text(["sea"])  # what is there is not offered again
    for key in ("Escape", "Backspace", "Backspace", "Backspace"):
        page.keyboard.press(key)
    history = page.locator("#image-history")
    expect(history.locator("li")).to_have_count(2)
    expect(history).to_contain_text("a boat, sailboat")
    history.get_by_role("button", name="Restore “one”").click()
    expect(field).to_have_value("one")
    expect(history.locator("li")).to_have_count(3)
    expect(history.get_by_role("heading", name="History")).to_be_focused()

    page.get_by_text("Add another caption").click()
    page.get_by_label("Caption", exact=True).fill("a boat at sea")
    page.get_by_role("button", name="Add", exact=True).press("Enter")
    expect(page.get_by_role("textbox", name="Short")).to_be_focused()
    page.get_by_role("button", name="Remove the caption “Short”").press("Enter")
    expect(page.get_by_role("heading", name="Captions")).to_be_focused()

    page.keyboard.press("ArrowRight")
    expect_page(page, "boat-2.png")
    page.get_by_role("textbox", name="Tags").focus()
    page.keyboard.press("Control+ArrowRight")
    expect_page(page, "boat-3.png")
    assert captions(live)[0] == "one"
    with live.database.read() as session:
        assert service.get_image(session, 1).focus_x == 0


def test_a_deleted_picture_comes_back_by_undo(page: Page, live, dataset: str) -> None:
    page.goto(dataset)
    page.get_by_role("textbox", name="Caption of boat-3.png").fill("half-writ")
    page.get_by_role("checkbox", name="Select boat-2.png").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete boat-2.png").press("Enter")
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.get_by_role("checkbox", name="Select boat-3.png")).to_be_focused()
    expect(page.locator("#dataset-filters")).to_contain_text("All 2")
    expect(page.locator("[data-select-all]")).to_have_text("Select all 2")
    expect(page.locator("#checks")).to_contain_text("2 images are smaller")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.get_by_role("checkbox", name="Select boat-2.png")).to_be_focused()
    expect(page.locator("#dataset-filters")).to_contain_text("All 3")
    expect(page.locator("#toasts .toast")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Caption of boat-3.png")).to_have_value("half-writ")

    page.locator("#image-2 .tile-picture").click()
    expect_page(page, "boat-2.png")
    repeats = page.get_by_label("Repeats")
    with page.expect_response("**/use"):
        repeats.fill("3")
        repeats.press("Enter")  # stays on the page
    expect(repeats).to_be_focused()
    page.get_by_role("button", name="Delete boat-2.png").press("Enter")
    page.wait_for_url("**/datasets/boats*")
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    undo.press("Enter")
    expect(page.get_by_role("checkbox", name="Select boat-2.png")).to_be_attached()


def test_a_long_dataset_loads_on_and_everything_works_on_later_pages(page: Page, live) -> None:
    page.goto(long_dataset(live, 130))
    expect(page.locator("[data-tile]")).to_have_count(48)
    choose(page, [payload("new.png", png(9))])  # it belongs after the last page
    expect(page.locator("#dataset-filters")).to_contain_text("All 131")
    expect(page.locator("[data-tile]")).to_have_count(48)
    page.get_by_role("textbox", name="Caption of 47.png").focus()
    page.keyboard.press("Control+ArrowRight")
    expect(page.get_by_role("textbox", name="Caption of 48.png")).to_be_focused()
    page.keyboard.type("on the second page")
    expect(page.locator("[data-tile]").nth(48).locator("[data-state]")).to_have_text("Saved")
    assert captions(live)[48] == "on the second page"
    page.get_by_role("button", name="Delete 61.png").click()
    expect(page.locator("#dataset-filters")).to_contain_text("All 130")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#dataset-filters")).to_contain_text("All 131")
    page.get_by_role("link", name="More images").scroll_into_view_if_needed()
    expect(page.locator("[data-tile]")).to_have_count(131)
    expect(page.get_by_role("textbox", name="Caption of new.png")).to_be_attached()
    expect(page.get_by_role("link", name="More images")).to_have_count(0)
    names = page.locator("[data-tile] .tile-picture").evaluate_all("all => all.map(a => a.title)")
    assert names == [*(f"{number}.png" for number in range(130)), "new.png"]


def test_what_is_selected_goes_along_to_the_page_with_the_next_images(
    page: Page, live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_view, "PAGES_AT_ONCE", 1)
    page.goto(long_dataset(live, 49))
    page.locator("[data-select]").first.check()
    page.get_by_role("link", name="More images").click()
    page.wait_for_url("**page=2**")
    page.locator("[data-select]").first.check()
    expect(page.locator("[data-selected-count]")).to_have_text("2 selected")
    page.get_by_role("link", name="Earlier images").click()
    expect(page.locator("[data-select]").first).to_be_checked()
    page.reload()
    expect(page.locator("[data-tile]")).to_have_count(48)
    expect(page.locator("[data-selected-count]")).to_have_text("")


def test_the_link_to_more_images_hands_the_focus_to_the_first_of_them(page: Page, live) -> None:
    page.goto(long_dataset(live, 61))
    page.get_by_role("link", name="More images").focus()
    expect(page.locator("[data-tile]").nth(48).locator("[data-select]")).to_be_focused()


def test_a_deleted_dataset_comes_back_by_undo(page: Page, dataset: str) -> None:
    page.goto(dataset)
    more = page.get_by_text("More for this dataset")
    more.press("Enter")
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    more.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/datasets")
    expect(page.locator(".card")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("h1")).to_have_text("Boats")


def test_the_example_is_one_click_away(page: Page, live) -> None:
    page.goto("/")
    page.get_by_role("button", name="Try Chalkboard").click()
    page.wait_for_url("**/datasets/chalkboard", timeout=60_000)
    expect(page.locator(".tile")).to_have_count(24)
    expect(page.get_by_role("textbox", name="Caption of fox.webp")).to_have_value(
        "fox, chalkboard style"
    )
    expect(page.get_by_role("link", name="Train this style")).to_have_attribute(
        "href", "/train/new?dataset=chalkboard"
    )


def test_everything_works_without_scripts(chromium, live, dataset: str) -> None:
    context = chromium.new_context(base_url=live.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(dataset)
    page.get_by_role("textbox", name="Caption of boat-3.png").fill("by hand")
    page.locator(".tile").nth(2).get_by_role("button", name="Save").click()
    choose(page, [payload("plain.png", png(7)), payload("broken.png", b"nope")])
    page.get_by_role("button", name="Upload").click()
    expect(page.locator(".tile")).to_have_count(4)
    expect(page.locator(".notice")).to_contain_text("broken.png")
    assert captions(live)[2] == "by hand"
    with live.database.write() as session:
        row = service.dataset_by_slug(session, "boats")
        row.trigger_word = "ink"
        session.add(row)
    page.goto("/train/new?dataset=boats")
    preview = page.get_by_role("link", name="Preview")  # the button beside it needs a script
    expect(preview.locator("xpath=../button")).to_be_hidden()
    preview.click()
    expect(page.locator("#edit-preview")).to_contain_text("Changes 4 captions")
    context.close()


def test_the_question_mark_shows_the_shortcuts_and_keeps_the_theme(
    page: Page, dataset: str
) -> None:
    page.goto(dataset)
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("button", name="Theme").click()
    with page.expect_response("**/theme"):
        page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_nothing_sticks_out_at_any_width(page: Page, dataset: str) -> None:
    for address in ("/", "/datasets", dataset, "/patterns", "/system", "/nowhere"):
        page.goto(address)
        for width in (360, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            page.evaluate("new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn)))")
            where = f"{address} at {width} px"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, where
            ends = page.eval_on_selector_all(
                ".places a", "links => links.map(link => link.getBoundingClientRect().right)"
            )
            assert len(ends) == 4
            assert max(ends) <= width, where


def test_on_narrow_windows_order_is_beside_the_search_and_more_below_the_caption(
    page: Page, dataset: str
) -> None:
    for width in (360, 768):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(dataset)
        places = ("[type=search]:visible", ".sort-menu > summary", "#filter-all")
        search, order, all_images = boxes_of(*(page.locator(place) for place in places))
        assert abs(search["y"] - order["y"]) < 4
        assert all_images["y"] > search["y"]
    page.set_viewport_size({"width": 360, "height": 800})
    names = (".tile-picture", ".tile-rules")
    picture, rules = boxes_of(*(page.locator(name).first for name in names))
    assert rules["x"] >= picture["x"] + picture["width"]


def test_on_touch_screens_tiles_have_one_control_at_any_width(chromium, live, dataset: str) -> None:
    context = chromium.new_context(
        base_url=live.url, viewport={"width": 768, "height": 900}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(dataset)
    tile = page.locator(".tile").first
    delete = tile.get_by_role("button", name="Delete")
    expect(delete).to_be_hidden()
    boxes = boxes_of(tile.locator(".tile-select"), tile.get_by_text("More"))
    assert min(box["height"] for box in boxes) >= 40  # as high as a finger is wide
    tile.get_by_text("More").tap()
    expect(delete).to_be_visible()
    context.close()


def test_a_saved_trigger_word_is_said_where_the_page_begins(page: Page, dataset: str) -> None:
    page.goto(dataset)
    page.locator("#edit > summary").click()
    page.get_by_label("Trigger word", exact=True).fill("sailboat")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("Name and trigger word are saved.")
    expect(page.locator("#content")).to_be_focused()
