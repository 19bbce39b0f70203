"""The pages that are photographed, each in a state that a person meets.

Pages are found by address and their parts by role and label, so that a new layout changes nothing
here.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

from docs.screenshots.camera import DESKTOP, PHONE, WAIT_MS, Camera, Frame
from worker.core.starter.examples import CHALKBOARD

EXAMPLE = CHALKBOARD
TRY_IT = f"Try {EXAMPLE.title}"

RUN_FRAME = Frame(DESKTOP.width, 1360)
"""Tall enough for the samples, and the loss below them."""


def welcome(camera: Camera) -> list[Path]:
    """The first page of an empty registry."""
    with camera.page() as page:
        _open(page, "/")
        expect(page.get_by_role("button", name=TRY_IT)).to_be_visible()
        return camera.photograph(page, "welcome")


def add_example(camera: Camera) -> None:
    """Add the bundled example with the button on the first page."""
    with camera.page() as page:
        _open(page, "/")
        page.get_by_role("button", name=TRY_IT).click()
        page.wait_for_url(f"**/datasets/{EXAMPLE.key}")


def home(camera: Camera) -> list[Path]:
    """The first page once there is something to continue."""
    with camera.page() as page:
        _open(page, "/")
        return camera.photograph(page, "home")


def dataset(camera: Camera, slug: str = EXAMPLE.key) -> list[Path]:
    """A dataset, its images and captions."""
    with camera.page() as page:
        _open(page, f"/datasets/{slug}")
        return camera.photograph(page, "dataset")


def training(camera: Camera, run_id: int) -> list[Path]:
    """A run that trains: progress, samples so far, the loss."""
    with camera.page(RUN_FRAME) as page:
        _open_run(page, run_id)
        return camera.photograph(page, "training")


def finished_run(camera: Camera, run_id: int) -> list[Path]:
    """A run that succeeded."""
    with camera.page(RUN_FRAME) as page:
        _open_run(page, run_id)
        return camera.photograph(page, "run")


def phone(camera: Camera, run_id: int) -> list[Path]:
    """The same run on a phone."""
    with camera.page(PHONE) as page:
        _open_run(page, run_id)
        return camera.photograph(page, "phone")


def adapter(camera: Camera, slug: str) -> list[Path]:
    """An adapter with its images, files and facts."""
    with camera.page() as page:
        _open(page, f"/adapters/{slug}")
        return camera.photograph(page, "adapter")


def playground(camera: Camera, slug: str, prompt: str, seed: int) -> list[Path]:
    """An image with the adapter, next to that without it, and below it the strip of weights."""
    query = urlencode({"adapter": f"{slug}:1", "prompt": prompt, "seed": seed})
    with camera.page() as page:
        _open(page, f"/play?{query}")
        page.get_by_role("button", name=re.compile("^Generate")).click()
        result = page.get_by_role("region", name="Result")
        expect(result.get_by_role("link", name=re.compile("Download"))).to_be_visible(
            timeout=WAIT_MS
        )
        expect(result.get_by_role("img", name=prompt).nth(1)).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="at nine weights").click()
        expect(page.locator("#strip .strip-cell")).to_have_count(9, timeout=WAIT_MS)
        page.mouse.move(0, 0)
        for part in (page.locator("html"), page.locator(".play-side")):  # what a click scrolled
            part.evaluate("part => part.scrollTo({ top: 0, behavior: 'instant' })")
        return camera.photograph(page, "playground")


def _open(page: Page, address: str) -> None:
    answer = page.goto(address)
    assert answer is not None
    if not answer.ok:
        raise RuntimeError(f"{address}: {answer.status}")


def _open_run(page: Page, run_id: int) -> None:
    _open(page, f"/runs/{run_id}")
    expect(page.get_by_role("table").get_by_role("img").first).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("canvas").first).to_be_visible(timeout=WAIT_MS)
