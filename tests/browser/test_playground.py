"""The playground as a person meets it: weights, seeds, with and without, in a real browser."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import sqlalchemy as sa
from playwright.sync_api import BrowserContext, Locator, Page, expect
from sqlmodel import col, select

from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.renders import listing, service
from app.registry.slugs import slugify
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from tests import fake_workers
from tests.browser.boxes import box_of, boxes_of
from tests.browser.conftest import Live
from tests.images import make_png

pytestmark = pytest.mark.browser


IS_IN_VIEW = """() => {
  const focused = document.activeElement;
  const { x, y, width, height } = focused.getBoundingClientRect();
  const top = document.elementFromPoint(x + width / 2, y + height / 2);
  return focused.contains(top) || top?.closest("label")?.contains(focused);
}"""


IS_IMAGE_ABOVE = """() => {
  const middle = (box) => box.y + box.height / 2;
  const at = (selector) => document.querySelector(selector).getBoundingClientRect();
  for (let tries = 0; tries < 9; tries++) {
    scrollBy({ top: middle(at("#draw")) - middle(at(".result-images")), behavior: "instant" });
  }
  const { x, width } = at(".result-images");
  const top = document.elementFromPoint(x + width / 2, middle(at("#draw")));
  return Boolean(top.closest(".result-images"));
}"""
"""True if the image covers the button of the form, where the page is scrolled to both."""


def generate(live: Live, page: Page, address: str) -> Locator:
    """Generate the image of an address of the playground; the label of the image."""
    fake_workers.worker_seen(live.state, "render")
    page.goto(address)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#result")).to_contain_text("In line")
    fake_workers.draw(live.state)
    return page.locator("#result .comparison-label").first


def test_a_picture_is_drawn_beside_its_twin_and_has_its_own_address(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:0.75")
    page.get_by_label("Prompt", exact=True).fill("a castle")
    page.get_by_role("button", name="+ chalkboard").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a castle, chalkboard")
    page.keyboard.press("Control+Enter")
    result = page.locator("#result")
    expect(result).to_contain_text("No render worker is running")
    expect(page).to_have_url(re.compile(r"/play\?adapter=chalk%3A0\.75&prompt=a\+castle"))
    fake_workers.draw(live.state)
    expect(result.locator(".comparison img")).to_have_count(2)
    expect(result).to_contain_text("Without your style")
    expect(page.locator("#earlier img")).to_have_count(1)
    result.get_by_role("radio", name="Slider").check()
    expect(page.get_by_role("slider", name="Without your style on the right")).to_be_visible()
    result.get_by_role("link", name="Open").click()
    expect(page).to_have_url(re.compile(r"/renders/\d+$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("a castle, chalkboard")


def test_try_shows_the_training_sample_until_generate_draws_it_again(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.goto("/runs/1")
    page.get_by_role("link", name="Try it", exact=True).click()
    page.wait_for_url("**/play?*")  # with its scripts
    result = page.locator("#result")
    expect(result.locator("figcaption")).to_have_text("Training sample, step 40, seed 0")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("0")
    page.get_by_label("Steps").fill("21")
    expect(result).to_contain_text("Out of date. Press Generate.")
    page.get_by_role("button", name="Generate").click()
    expect(result).not_to_contain_text("Training sample")
    fake_workers.draw(live.state)
    expect(result.locator(".comparison-label").first).to_have_text("Chalk 1.00")


def test_an_adapter_is_found_and_added_with_the_keyboard_alone(live: Live, page: Page) -> None:
    with live.database.write() as session:
        for name in ("Moss", *(f"Style {number}" for number in range(25))):
            publish(session, NewVersion(name, "sd1", "a" * 64, 5, 8, 8.0))
    page.goto("/play")
    add, search = page.get_by_role("button", name="Add an adapter"), page.get_by_label("Find adapt")
    add.press("Enter")
    expect(search).to_be_focused()
    page.keyboard.press("Escape")
    expect(search).to_be_hidden()
    expect(add).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # no words: it adds nothing
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("button", name="Add Style 23")).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(search).to_be_focused()
    search.press_sequentially("mos")
    expect(page.locator("#add-told")).to_have_text("1 adapter found.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Moss")).to_be_visible()
    expect(page.locator("#stack-told")).to_have_text("Moss is added with weight 1.")
    expect(search).to_be_hidden()
    expect(add).to_be_focused()
    expect(page).to_have_url(re.compile(r"/play\?adapter=moss$"))
    with live.database.read() as session:
        assert listing.recent_renders(session) == []


def add_adapter(page: Page, name: str) -> None:
    page.get_by_role("button", name="Add an adapter").click()
    page.get_by_role("button", name=f"Add {name}").click()


def test_another_base_marks_at_once_what_does_not_fit(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    base = BaseModel(slug="sd15", name="SD 1.5", source=str(live.settings.data_dir))
    base.status, base.family, base.parameters = "ready", "sd1", {"unet": 859_520_964}
    with live.database.write() as session:
        session.add(base)
        publish(session, NewVersion("Real", "sd1", "a" * 64, 5, 8, 8.0))
    page.goto("/play?adapter=chalk:0.75")
    page.get_by_label("Prompt", exact=True).fill("half a thought")
    choices = page.locator("#add-choices")
    expect(choices.locator(".unfit")).to_contain_text("for SD 1.x")
    expect(choices.locator("[name=add]")).to_have_count(0)
    page.get_by_text("Size, CLIP skip and base model").click()
    page.get_by_label("Base model").focus()
    page.get_by_label("Base model").select_option("sd15")
    expect(page.locator("#fit-0")).to_contain_text("does not fit “SD 1.5”. It fits “starter”.")
    expect(page.locator("#base-told")).to_have_text("1 adapter above does not fit.")
    expect(choices.locator("[name=add][value=real]")).to_have_count(1)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("half a thought")
    expect(page.get_by_label("Base model")).to_be_focused()
    page.get_by_label("Base model").select_option("starter")
    expect(page.locator("#fit-0")).to_have_count(0)
    expect(page.locator("#base-told")).to_be_hidden()
    page.get_by_label("Base model").select_option("sd15")
    expect(page.locator("#fit-0")).to_be_visible()
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("Correct the marked fields below.")
    expect(page.locator("#fit-0")).to_be_visible()


def test_slider_and_number_hold_one_weight(live: Live, page: Page) -> None:
    adapter = fake_workers.adapter(live.state)
    with live.state.database.write() as session:
        set_usual_weight(session, adapter.key, None, 0.6)
    page.goto("/play?adapter=chalk:0.75")
    slider = page.get_by_label("Weight of Chalk, slider")
    number = page.get_by_label("Weight of Chalk", exact=True)
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(number).to_have_value("0.8")
    number.focus()
    page.keyboard.press("ArrowUp")
    expect(number).to_have_value("0.81")
    number.fill("-0,5")
    expect(slider).to_have_value("-0.5")
    number.fill("7.5")
    expect(slider).to_have_value("2")
    expect(number).to_have_value("7.5")
    page.get_by_role("button", name="Reset to the usual weight, 0.6").click()
    expect(slider).to_have_value("0.6")
    expect(number).to_have_value("0.6")
    slider.focus()
    page.keyboard.press("ArrowRight")
    slider.dblclick()
    expect(number).to_have_value("0.6")
    expect(page.get_by_text("Text encoder")).to_have_count(0)  # it was trained without it


def test_the_weight_of_the_text_encoder_follows_until_it_has_its_own(
    live: Live, page: Page
) -> None:
    fake_workers.ready_base(live.state)
    with live.database.write() as session:
        publish(session, NewVersion("Moss", "sd1", "a" * 64, 5, 8, 8.0, base_model_id=1))
    page.goto("/play?adapter=moss:0.75&prompt=x&seed=7")
    fold = page.get_by_text("Text encoder: same weight")
    fold.click()
    text = page.get_by_label("Text encoder weight of Moss", exact=True)
    text_slider = page.get_by_label("Text encoder weight of Moss, slider")
    page.get_by_label("Weight of Moss", exact=True).fill("0.5")
    expect(text_slider).to_have_value("0.5")
    expect(text).to_have_value("")
    text_slider.press("ArrowLeft")
    expect(text).to_have_value("0.45")
    expect(page.get_by_text("Text encoder: 0.45")).to_be_visible()
    expect(page).to_have_url(re.compile("adapter=moss%3A0.5%3A0.45&"))  # it was redrawn
    page.get_by_label("Weight of Moss", exact=True).fill("0.6")
    expect(text_slider).to_have_value("0.45")
    page.get_by_role("button", name="Same weight as the UNet").click()
    expect(text).to_have_value("")
    expect(text_slider).to_have_value("0.6")


def test_a_blend_holds_the_sum_of_the_weights(live: Live, page: Page) -> None:
    for name in ("Chalk", "Night", "Moss"):
        fake_workers.adapter(live.state, name)
    address = (
        "/play?adapter=chalk:0.5&adapter=night:0.5&adapter=moss:0.25&mix=blend&prompt=x&seed=1"
    )
    page.goto(address)

    def weigh(name: str, weight: str) -> None:
        page.get_by_label(f"Weight of {name}", exact=True).fill(weight)

    def expect_weights(*weights: str) -> None:
        for name, weight in zip(("Chalk", "Night", "Moss"), weights, strict=True):
            expect(page.get_by_label(f"Weight of {name}", exact=True)).to_have_value(weight)

    shown_sum = page.locator("[data-mix-sum]")
    weigh("Chalk", "0.35")
    expect_weights("0.35", "0.6", "0.3")
    expect(page.get_by_label("Weight of Night, slider")).to_have_value("0.6")
    weigh("Chalk", "0.25")
    expect_weights("0.25", "0.667", "0.333")
    expect(shown_sum).to_have_text("The weights add up to 1.25")
    expect(page).to_have_url(re.compile("chalk%3A0.25&adapter=night%3A0.667&adapter=moss%3A0.333"))
    expect(page).to_have_url(re.compile("mix=blend"))  # what is shown is what is redrawn
    weigh("Chalk", "2")  # above the sum
    expect_weights("2", "0", "0")
    for text in ("", "-", "much"):
        weigh("Chalk", text)
        expect_weights(text, "0", "0")
    weigh("Chalk", "0.5")
    expect_weights("0.5", "0.5", "0.25")
    page.get_by_role("switch", name="Use Moss").uncheck()
    weigh("Night", "0.3")
    expect_weights("0.7", "0.3", "0.25")
    page.get_by_role("radio", name="Sum").check(force=True)
    weigh("Night", "-0.7")
    expect(shown_sum).to_have_text("The weights add up to 0")
    page.get_by_role("radio", name="Blend").check(force=True)
    weigh("Night", "-0.2")  # of both signs and a sum of zero
    expect_weights("0.2", "-0.2", "0.25")


def test_a_weight_that_moves_redraws_the_image_with_its_seed(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    fake_workers.worker_seen(live.state, "render")
    page.goto("/play?adapter=chalk:0.75&prompt=a+castle")
    slider = page.get_by_label("Weight of Chalk, slider")
    result, seed = page.locator("#result"), page.get_by_label("Seed", exact=True)
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(result).to_contain_text("In line, starts in a moment")
    first = seed.input_value()
    fake_workers.draw(live.state)
    expect(result.locator(".comparison-label").first).to_have_text("Chalk 0.80")
    expect(page.locator("#result-status")).to_have_text("Generated with Chalk 0.80.")
    expect(slider).to_be_focused()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(result.locator(".comparison-label").first).to_have_text("Out of date")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"/play\?adapter=chalk%3A1\.1&prompt=a\+castle&seed="))
    fake_workers.draw(live.state)
    expect(result.locator(".comparison-label").first).to_have_text("Chalk 1.10")
    expect(seed).to_have_value(first)
    with live.database.read() as session:
        assert listing.recent_renders(session) == []
        drafts = session.exec(select(Render).where(col(Render.twin_id).is_not(None))).all()
    assert [draft.status for draft in drafts if draft.stack[0].weight == 1.1] == ["succeeded"]
    assert {draft.status for draft in drafts} <= {"succeeded", "canceled"}
    result.get_by_role("button", name="Keep").click()
    expect(result.get_by_role("button", name="Keep")).to_have_count(0)
    with live.database.read() as session:
        assert len(listing.recent_renders(session)) == 1
    page.get_by_label("Steps").fill("21")
    expect(result).to_contain_text("Out of date. Press Generate.")
    page.route("**/play/live", lambda route: route.fulfill(status=503), times=1)
    slider.press("ArrowLeft")  # a server that is busy does not redraw it
    expect(result).to_contain_text("redrawing…")
    expect(result).to_contain_text("Out of date. Press Generate.")
    page.get_by_label("Redraw while a weight moves").uncheck()
    slider.press("ArrowLeft")
    expect(result).to_contain_text("Out of date. Press Generate.")
    page.get_by_role("button", name="Generate").click()
    expect(result).not_to_contain_text("Press Generate")
    expect(page.get_by_label("Redraw while a weight moves")).not_to_be_checked()
    page.get_by_role("button", name="Remove Chalk").click()
    expect(result).to_contain_text("Out of date. Press Generate.")


def test_a_slow_image_is_drawn_once_when_the_slider_is_let_go(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    label = generate(live, page, "/play?adapter=chalk:0.9&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.90")
    with live.database.write() as session:
        session.connection().execute(sa.update(Render).values(seconds=9.0))
    page.reload()
    switch, result = page.get_by_label("Redraw while a weight moves"), page.locator("#result")
    expect(switch).to_be_checked()
    expect(page.locator("#live-note")).to_contain_text("drawn when you let go")
    page.get_by_label("Weight of Chalk, slider").hover()
    page.mouse.down()
    expect(result).to_contain_text("Out of date, drawn when you let go")
    page.wait_for_timeout(700)  # longer than the weight has to rest
    expect(result).not_to_contain_text("In line")
    page.mouse.up()
    expect(result).to_contain_text("In line")
    fake_workers.draw(live.state)  # 0.8 seconds
    expect(page.locator("#live-note")).to_be_hidden()
    expect(switch).to_be_checked()


def test_only_the_prompt_or_only_the_seed_of_a_result_is_used_again(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?prompt=a+castle&seed=7&count=2")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#result")).to_contain_text("No render worker is running")
    fake_workers.draw(live.state)
    expect(page.locator("#result .seeds img")).to_have_count(2)
    page.goto("/play?adapter=chalk:0.4&prompt=a+fox&seed=9")
    page.goto("/renders/1")
    page.get_by_role("link", name="Use only the seed").click()
    expect(page).to_have_url("/play?adapter=chalk%3A0.4&prompt=a+fox&seed=7")
    page.goto("/renders/1")
    page.get_by_role("link", name="Use only the prompt").click()
    expect(page).to_have_url("/play?adapter=chalk%3A0.4&prompt=a+castle&seed=7")


def test_a_strip_shows_its_images_as_the_weight_moves_without_a_request(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    label = generate(live, page, "/play?adapter=chalk:0.8&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.80")
    page.get_by_role("button", name="Chalk at nine weights").click()
    expect(page.locator("#strip")).to_contain_text("In line, starts in a moment")
    fake_workers.draw(live.state)
    expect(page.locator("#strip img")).to_have_count(9)
    page.set_viewport_size({"width": 1440, "height": 900})
    first, last = boxes_of(*page.locator("#strip img").all()[::8])
    assert (first["width"] >= 120, first["y"]) == (True, last["y"])  # large, in one line
    expect(page.locator("#strip [aria-pressed=true]")).to_be_in_viewport()
    page.get_by_label("Redraw while a weight moves").uncheck()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    slider = page.get_by_label("Weight of Chalk, slider")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(label).to_have_text("Chalk 1.00")
    expect(page.locator("#result-status")).to_have_text("Chalk 1.00")
    page.get_by_role("button", name="-0.50").click()
    expect(label).to_have_text("Chalk -0.50")
    expect(slider).to_have_value("-0.5")
    expect(page.get_by_role("button", name="-0.50")).to_have_attribute("aria-pressed", "true")
    assert [url for url in asked if re.search("/renders|/play(?!/together)", url)] == []
    page.get_by_label("Redraw while a weight moves").check()
    slider.press("ArrowRight")  # between two images: the nearer one, until its own is there
    expect(page.locator("#cancel-render")).to_be_visible()
    expect(label).to_have_text("Nearest: Chalk -0.50")
    fake_workers.draw(live.state)
    expect(label).to_have_text("Chalk -0.45")
    page.get_by_label("Redraw while a weight moves").uncheck()
    page.get_by_label("Steps").fill("9")
    slider.press("ArrowRight")
    expect(page.locator("#result")).to_contain_text("Out of date. Press Generate.")
    expect(page.get_by_role("button", name="Chalk at nine weights")).to_be_enabled()


def test_on_a_phone_a_strip_that_comes_is_in_view_and_shows_its_first_image(
    live: Live, page: Page
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(live.state, name)
    fake_workers.worker_seen(live.state, "render")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/play?adapter=chalk:1&adapter=night:1&prompt=a+castle&seed=7")
    page.get_by_role("button", name="Chalk and Night in a square").click()
    expect(page.locator("#strip")).to_contain_text("In line, starts in a moment")
    fake_workers.draw(live.state)
    expect(page.locator("#result figcaption")).to_have_text("Chalk 1.00, Night 1.00")
    expect(page.locator("#strip [aria-pressed=true]")).to_be_in_viewport()
    expect(page.locator("#strip-title")).to_be_in_viewport()
    panel, prompt = boxes_of(page.locator("#strip-panel"), page.locator("#prompt"))
    assert panel["y"] < prompt["y"]


def test_the_words_below_a_weight_slider_touch_nothing_on_a_phone(live: Live, page: Page) -> None:
    chalk = fake_workers.adapter(live.state)
    page.set_viewport_size({"width": 360, "height": 740})
    for usual in (0, 0.1, 0.4, 0.5, 0.6, 0.9, 1, 1.4, 2):
        with live.database.write() as session:
            set_usual_weight(session, chalk.key, None, usual)
        page.goto("/play?adapter=chalk")
        words = page.locator("#stack .weight-ticks").first.locator("text")
        expect(words).to_have_text(["0", "1", "usual"])
        slider, *ticks = boxes_of(page.get_by_label("Weight of Chalk, slider"), *words.all())
        boxes = sorted((box["x"], box["x"] + box["width"]) for box in ticks)
        assert all(end + 2 < start for (_, end), (start, _) in pairwise(boxes)), usual
        assert boxes[0][0] >= slider["x"], usual
        assert boxes[-1][1] <= slider["x"] + slider["width"], usual
    assert page.locator("#stack").aria_snapshot().count("usual") == 1  # the button


def test_a_square_is_dragged_and_walked_and_moves_both_weights_without_a_request(
    live: Live, page: Page
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(live.state, name)
    label = generate(live, page, "/play?adapter=chalk:0.8&adapter=night:0.4&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.80, Night 0.40")
    page.get_by_role("button", name="Chalk and Night in a square").click()
    expect(page.locator("#strip")).to_contain_text("In line, starts in a moment")
    with live.database.read() as session:
        (slot,) = session.exec(select(Render.draft_slot).where(col(Render.draft_slot).is_not(None)))
    assert re.fullmatch("[0-9a-f]{32}-strip", slot or "")  # of this tab
    fake_workers.draw(live.state)
    square = page.get_by_role("grid", name="Both weights")
    expect(square.get_by_role("button")).to_have_count(25)
    expect(page.locator("#result-status")).to_have_text("All 25 images are ready.")
    chosen = square.locator("[aria-pressed=true]")
    expect(chosen).to_have_accessible_name("Chalk 0.75, Night 0.50")
    # large, above the result, and as wide as it can be on small windows
    for width, least in ((1440, 120), (768, 56), (360, 44)):
        page.set_viewport_size({"width": width, "height": 900})
        assert box_of(chosen)["width"] >= least, width
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.set_viewport_size({"width": 1440, "height": 900})
    above, below = boxes_of(square, page.locator("#result"))
    assert above["y"] < below["y"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sliders = [page.get_by_label(f"Weight of {name}, slider") for name in ("Chalk", "Night")]

    def expect_pair(chalk: str, night: str) -> None:
        name = f"Chalk {float(chalk):.2f}, Night {float(night):.2f}"
        expect(chosen).to_have_accessible_name(name)
        expect(label).to_have_text(name)
        expect(sliders[0]).to_have_value(chalk)
        expect(sliders[1]).to_have_value(night)

    chosen.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    expect_pair("1", "0.25")
    expect(chosen).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect_pair("1", "1")
    assert square.locator("[tabindex='0']").count() == 1
    square.get_by_role("button", name="Chalk 0.25, Night 0.75").hover()
    page.mouse.down()
    expect_pair("0.25", "0.75")
    square.get_by_role("button", name="Chalk 0.50, Night 0.25").hover()
    expect_pair("0.5", "0.25")
    page.mouse.move(0, 0)  # from outside, the nearest
    expect_pair("0", "0")
    page.mouse.up()
    page.mouse.move(500, 500)
    expect_pair("0", "0")
    page.get_by_label("Redraw while a weight moves").uncheck()
    sliders[0].fill("0.55")
    expect(chosen).to_have_accessible_name("Chalk 0.50, Night 0.00")
    assert [url for url in asked if re.search("/renders|/play(?!/together)", url)] == []


def test_a_slider_goes_through_the_checkpoints_of_a_run_and_one_is_tried(
    live: Live, page: Page
) -> None:
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state), steps=400)
    training = fake_workers.FakeTraining(live.state)
    training.sample(0)
    for _ in range(3):
        training.train(10)
        training.sample(training.step)
        training.checkpoint()
    fake_workers.worker_seen(live.state, "render")
    page.goto("/runs/1")
    page.get_by_role("link", name="Scrub through checkpoints").click()
    expect(page.locator("#strip")).to_contain_text("In line, starts in a moment")  # by itself
    fake_workers.draw(live.state)
    expect(page.locator("#strip img")).to_have_count(3)
    expect(page.locator("#result figcaption")).to_have_text("Chalk step 30, 1.00")
    chosen = page.locator("#strip [aria-pressed=true]")
    expect(chosen).to_have_text("30")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.press("ArrowLeft")
    expect(chosen).to_have_text("20")
    expect(slider).to_have_attribute("aria-valuetext", "Chalk step 20, 1.00")
    expect(slider).to_be_focused()
    expect(page.locator("#result img")).to_have_attribute("alt", "Chalk step 20, 1.00")
    page.get_by_role("button", name="10", exact=True).click()
    expect(slider).to_have_value("0")
    page.keyboard.press("ArrowRight")
    expect(chosen).to_be_focused()
    expect(page.locator("#result figcaption")).to_have_text("Chalk step 20, 1.00")
    assert [url for url in asked if re.search("/renders|/play(?!/together)", url)] == []
    page.get_by_role("button", name="Try this checkpoint").click()
    expect(page).to_have_url(re.compile(r"/play\?adapter=chalk-run-1%4020%3A1&prompt=a\+castle"))
    expect(page.locator("#stack")).to_contain_text("step 20")
    expect(page.locator("#strip img")).to_have_count(3)  # to go on
    slider.press("End")
    expect(chosen).to_have_text("30")


PASTE = """(text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
  document.getElementById("prompt").dispatchEvent(event);
}"""
DROP = """(png) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(png)], "a.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


def test_a_pasted_text_or_a_dropped_image_fills_the_form(live: Live, page: Page) -> None:
    page.goto("/play")
    page.evaluate(PASTE, "a castle\nSteps: 9, Sampler: Euler, CFG scale: 3, Seed: 5")
    address = "/play?prompt=a+castle&seed=5&sampler=euler&steps=9&guidance=3"
    expect(page).to_have_url(address)
    expect(page.get_by_label("Sampler")).to_have_value("euler")
    page.evaluate(DROP, list(make_png(1)))
    expect(page.locator("#recall-told")).to_contain_text("This image has no settings inside.")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a castle")


def test_a_seed_is_kept_only_while_it_is_locked(live: Live, page: Page) -> None:
    page.goto("/play")
    page.get_by_label("Prompt", exact=True).fill("a castle")
    page.get_by_label("Seed", exact=True).fill("7")
    lock = page.get_by_role("checkbox", name="Keep this seed")
    expect(lock).to_be_checked()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result")).to_contain_text("No adapters")
    lock.uncheck(force=True)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Seed", exact=True)).not_to_have_value("7")
    with live.database.read() as session:
        seeds = [service.get_render(session, key).seed for key in (1, 2)]
    assert seeds[0] == 7
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(seeds[1]))
    page.get_by_role("button", name="New random seed").click()
    expect(lock).to_be_checked()


def test_a_recipe_is_saved_with_the_keyboard_and_opened(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:0.75&prompt=a+castle&seed=7")
    page.get_by_text("Save as a recipe").click()
    name, told = page.get_by_label("Name", exact=True), page.locator("#recipe-told")
    name.press("Enter")
    expect(told).to_have_text("Enter a name.")
    name.fill("Evening chalk")
    page.get_by_label("Weight of Chalk", exact=True).fill("0.5")
    name.press("Enter")
    expect(told).to_have_text("Saved as “Evening chalk”.")
    told.get_by_role("link").click()
    expect(page).to_have_url(re.compile("/recipes/evening-chalk$"))
    expect(page.get_by_label("Weight of Chalk", exact=True)).to_have_value("0.5")
    with live.database.read() as session:
        assert listing.recent_renders(session) == []


def test_what_is_wrong_is_said_beside_its_field_and_mended_in_place(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    page.goto("/play?adapter=chalk:1")
    page.get_by_label("Prompt", exact=True).fill("p" * 5_000)
    weight = page.get_by_label("Weight of Chalk", exact=True)
    weight.fill("abc")
    page.get_by_role("button", name=re.compile("Generate")).last.click()
    expect(weight).to_have_accessible_description("Enter a number.")
    expect(weight).to_have_value("abc")
    expect(weight).to_have_attribute("aria-invalid", "true")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_accessible_description(re.compile("use at most 2,000"))
    expect(prompt).to_have_value("p" * 5_000)
    expect(prompt).to_be_focused()
    prompt.fill("a castle")
    weight.fill("0.5")
    page.get_by_role("button", name=re.compile("Generate")).last.click()
    expect(page.locator("#result")).to_contain_text("Chalk 0.50")


def test_no_control_that_has_the_focus_is_behind_the_image_of_a_phone(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.set_viewport_size({"width": 360, "height": 740})
    label = generate(live, page, "/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.50")
    page.locator("#draw").focus()
    for _ in range(16):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate(IS_IN_VIEW), page.evaluate("document.activeElement.outerHTML")
    assert page.evaluate(IS_IMAGE_ABOVE)


PARTS = """() => {
  const names = [
    ...["#result .result-images", "#result > .row:not(.comparison-tools)", "#prompt", "#draw"],
    ...["#strip-panel", "#earlier", "#recipe-panel"],
  ];
  return [...document.querySelectorAll(names.join())].map((part) => {
    return [names.find((name) => part.matches(name)), part.getBoundingClientRect().top];
  });
}"""
"""Parts of the playground in the order of Tab, with their places from the top."""


def test_on_a_phone_what_can_be_done_is_below_the_image_and_strips_below_the_form(
    live: Live, page: Page
) -> None:
    fake_workers.adapter(live.state)
    page.set_viewport_size({"width": 360, "height": 740})
    label = generate(live, page, "/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.50")
    form, result = (
        ["#prompt", "#draw"],
        ["#result .result-images", "#result > .row:not(.comparison-tools)"],
    )
    below = ["#strip-panel", "#recipe-panel", "#earlier"]
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    parts = dict(page.evaluate(PARTS))
    assert list(parts) == [*result, *form, *below]
    del parts["#draw"]  # stays in view
    assert list(parts.values()) == sorted(parts.values())
    page.get_by_role("link", name="Use these settings").focus()
    for _ in range(5):
        page.keyboard.press("Tab")
        assert page.evaluate(IS_IN_VIEW), page.evaluate("document.activeElement.outerHTML")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    download = page.get_by_role("link", name="Download PNG")
    download.focus()
    page.set_viewport_size({"width": 1280, "height": 740})
    expect(page.locator(".play-side > #result")).to_be_visible()
    strip, recipe, earlier = below
    assert [name for name, _ in page.evaluate(PARTS)] == [*form, recipe, *result, strip, earlier]
    expect(download).to_be_focused()


def test_a_long_name_does_not_widen_the_page_of_a_phone(live: Live, page: Page) -> None:
    name = "Night" + "g" * 95
    for one in ("Chalk", name):
        fake_workers.adapter(live.state, one)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/play?adapter=chalk&adapter={slugify(name)}")
    expect(page.get_by_role("button", name="in a square")).to_contain_text(name)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_stack_grows_and_shrinks_without_losing_the_prompt(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state, "Chalk")
    fake_workers.adapter(live.state, "Night", trigger_word="nightboard")
    page.goto("/play")
    expect(page.get_by_label("Redraw while a weight moves")).to_be_hidden()  # there is no weight
    page.get_by_label("Prompt", exact=True).fill("half a thought")
    add_adapter(page, "Chalk")
    expect(page.get_by_label("Redraw while a weight moves")).to_be_visible()
    expect(page.get_by_role("button", name="+ chalkboard")).to_be_hidden()  # the prompt has it
    page.get_by_label("Weight of Chalk", exact=True).fill("0.3")
    add_adapter(page, "Night")
    expect(page.get_by_label("Weight of Night", exact=True)).to_have_value("1")
    expect(page.get_by_label("Weight of Night, slider")).to_be_focused()  # none is left to add
    expect(page.get_by_label("Weight of Chalk", exact=True)).to_have_value("0.3")
    page.get_by_role("button", name="Remove Chalk").press("Enter")
    expect(page.get_by_label("Weight of Chalk", exact=True)).to_have_count(0)
    expect(page.get_by_role("button", name="Add an adapter")).to_be_focused()
    prompt, chip = page.get_by_label("Prompt", exact=True), page.locator("#trigger-chips .chip")
    expect(prompt).to_have_value("half a thought, nightboard")
    expect(page).to_have_url(re.compile("adapter=night"))
    prompt.fill("a boat")  # the word is offered once
    expect(page.get_by_role("button", name="Add nightboard to the prompt")).to_be_visible()
    expect(chip).to_be_hidden()
    prompt.fill("")
    expect(chip).to_be_visible()


def test_back_brings_the_settings_and_the_image_before(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    fake_workers.measured_base(live.state)
    label = generate(live, page, "/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.50")
    prompt, image = page.get_by_label("Prompt", exact=True), page.locator("#result img").first
    prompt.fill("an owl")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result")).to_contain_text("In line")
    fake_workers.draw(live.state)
    expect(image).to_have_attribute("alt", "an owl")
    page.go_back()
    expect(image).to_have_attribute("alt", "a castle")
    expect(prompt).to_have_value("a castle")
    prompt.fill("a fox")
    expect(page.locator("#result")).to_contain_text("Out of date. Press Generate.")
    page.go_forward()
    expect(prompt).to_have_value("an owl")


SCROLLERS = """() => [...document.querySelectorAll("main *")].filter(
  (box) => box.scrollHeight > box.clientHeight + 1
    && ["auto", "scroll"].includes(getComputedStyle(box).overflowY),
).map((box) => box.outerHTML)"""
"""Parts of the page that are scrolled by themselves."""


def test_the_image_stays_in_view_of_the_whole_form_and_the_page_alone_is_scrolled(
    live: Live, page: Page
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(live.state, name)
    page.set_viewport_size({"width": 1440, "height": 900})
    label = generate(live, page, "/play?adapter=chalk:0.5&adapter=night:1&prompt=a+castle&seed=7")
    expect(label).to_be_visible()
    images = page.locator(".result-images")
    panel, shown = boxes_of(page.locator("#result"), images)
    assert shown["width"] >= panel["width"] - 34  # it fills its panel
    for control in ("#prompt", "#sampler", "#recall summary"):
        page.locator(control).scroll_into_view_if_needed()
        expect(images).to_be_in_viewport(ratio=0.9)
    assert page.evaluate(SCROLLERS) == []
    page.evaluate("scrollTo({ top: 9999, behavior: 'instant' })")
    last, earlier = boxes_of(page.locator("#recall"), page.locator("#earlier"))
    assert last["y"] + last["height"] < earlier["y"]


def test_a_result_is_deleted_and_restored_while_the_form_is_kept(live: Live, page: Page) -> None:
    fake_workers.adapter(live.state)
    label = generate(live, page, "/play?adapter=chalk:0.5&prompt=a+castle&seed=7")
    expect(label).to_have_text("Chalk 0.50")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("half a thought")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#result")).to_contain_text("Your image appears here")
    expect(page.locator("#earlier")).to_be_hidden()
    expect(page.locator("#toasts")).to_contain_text("The image was deleted.")
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    undo.press("Enter")
    expect(label).to_have_text("Chalk 0.50")
    expect(page.locator("#earlier img")).to_have_count(1)
    expect(undo).to_have_count(0)
    expect(prompt).to_have_value("half a thought")


def test_a_picture_on_its_way_can_be_canceled(live: Live, page: Page) -> None:
    page.goto("/play?prompt=a+castle")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#result")).to_contain_text("Canceled")
    expect(page.locator("#result")).not_to_have_attribute("hx-trigger", re.compile(".*"))


def test_the_playground_draws_without_scripts(context: BrowserContext, live: Live) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(live.state, name)
    bare = context.browser.new_context(base_url=live.url, java_script_enabled=False)  # type: ignore[union-attr]
    page = bare.new_page()
    page.goto("/play?adapter=chalk:0.75&adapter=night:0.25&prompt=a+castle")
    expect(page.get_by_role("radio", name="Blend")).to_be_visible()  # the server scales
    page.goto("/play?adapter=chalk:0.75&prompt=a+castle")
    expect(page.locator("#find-adapter")).to_be_visible()  # in the list, which is open
    assert page.evaluate("document.activeElement === document.body && scrollY === 0")
    expect(page.locator("#trigger-chips .hint")).to_be_visible()  # the trigger words
    expect(page.get_by_label("Weight of Chalk, slider")).to_be_hidden()  # it would do nothing
    page.get_by_role("button", name=re.compile("Generate")).last.click()
    expect(page).to_have_url(re.compile(r"/renders/\d+$"))
    fake_workers.draw(live.state)
    page.reload()
    expect(page.locator("#result .comparison img")).to_have_count(2)
    bare.close()


def test_a_subject_is_found_and_chosen_with_the_keyboard_alone(live: Live, page: Page) -> None:
    page.goto("/play")
    prompt, note = page.get_by_label("Prompt", exact=True), page.locator("#prompt-note")
    prompt.press_sequentially("zorblax")
    expect(note).to_contain_text("starter does not know “zorblax”.")
    prompt.fill("castle, zorblax style")
    expect(note).to_have_text("starter does not know “zorblax”.")
    summary = page.get_by_text("What starter can draw")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Find a subject that starter knows")).to_be_focused()
    page.keyboard.type("rocket")
    expect(page.locator("#subjects-told")).to_have_text("1 subject found.")
    page.keyboard.press("Enter")  # neither generates nor loses what is found
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="rocket", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(prompt).to_have_value("rocket, zorblax style")
    expect(page.locator("#subjects-told")).to_have_text("The prompt starts with rocket.")
    expect(page.get_by_role("button", name="rocket", exact=True)).to_be_focused()
    expect(page).to_have_url(re.compile(r"/play\?prompt=rocket%2C\+zorblax\+style"))
    prompt.fill("rocket, noto style")  # the new field is listened to as well
    expect(note).to_be_hidden()
    with live.database.read() as session:
        assert listing.recent_renders(session) == []
