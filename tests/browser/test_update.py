"""A page left open over an update: it says so once, never reloads by itself, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import FilePayload, Page, expect

from app.registry.datasets import service
from app.web import build
from tests import fake_workers
from tests.browser.conftest import Live
from tests.images import make_png

BANNER = (
    "Brushwork was updated. Reload this page when you are done; what you typed stays until then."
)

COUNT_ANSWERS = """
() => {
  window.answers = 0;
  document.addEventListener("htmx:afterRequest", () => { window.answers += 1; });
}
"""


@pytest.fixture
def update(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that makes the running app another release."""

    def change(release: str) -> None:
        monkeypatch.setattr(build, "release", lambda: release)
        build.fingerprint.cache_clear()

    yield change
    build.fingerprint.cache_clear()


def test_a_poll_after_an_update_tells_once_and_leaves_what_was_typed(
    live: Live, page: Page, update: Callable[[str], None]
) -> None:
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    page.clock.install()
    page.goto("/train/new")
    loads: list[str] = []
    page.on("load", lambda _: loads.append(page.url))
    name = page.get_by_label("Name", exact=True)
    name.fill("Typed before the update")
    name.focus()

    page.evaluate(COUNT_ANSWERS)

    def poll() -> None:
        before = page.evaluate("window.answers")
        page.clock.run_for(60_000)
        page.wait_for_function("(before) => window.answers > before", arg=before)

    poll()
    told = page.get_by_role("status").get_by_text(BANNER)
    expect(told).to_have_count(0)
    update("98.0.0")
    poll()
    expect(told).to_be_visible()
    expect(name).to_be_focused()
    update("99.0.0")
    poll()
    expect(told).to_have_count(1)
    bar = page.locator(".toast", has_text=BANNER)
    bar.get_by_role("button", name="Close").click()
    poll()
    expect(told).to_have_count(0)
    expect(name).to_have_value("Typed before the update")
    assert loads == []


def test_reload_is_the_users_and_ends_it(
    live: Live, page: Page, update: Callable[[str], None]
) -> None:
    with live.database.write() as session:
        slug = service.create_dataset(session, "Boats", trigger_word="boatish").slug
    page.route("**/running*", lambda route: route.abort())  # only what the user does is answered
    page.goto(f"/datasets/{slug}")
    update("99.0.0")
    # an upload of the old page still works, and it is the request that sees the update
    image = FilePayload(name="boat.png", mimeType="image/png", buffer=make_png(1))
    page.locator("input[type=file]").first.set_input_files(image)
    expect(page.get_by_text(BANNER)).to_be_visible()
    expect(page.locator("[data-tile]")).to_have_count(1)
    with page.expect_event("load"):
        page.get_by_role("button", name="Reload").click()
    expect(page.locator("[data-tile]")).to_have_count(1)
    caption = page.locator("[data-caption]")
    caption.fill("a boat")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        caption.blur()
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    expect(page.get_by_text(BANNER)).to_have_count(0)
    update("100.0.0")
    caption.fill("two boats")
    caption.blur()
    expect(page.get_by_text(BANNER)).to_be_visible()
    expect(caption).to_have_value("two boats")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
