"""Photographs of pages in headless chromium: each in the light and in the dark theme, as WebP."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")
WAIT_MS = 120_000  # a busy machine trains beside the browser
QUALITIES = (75, 70, 65, 60, 55, 50)  # of WebP, 0 to 100; the first whose file is small enough
EFFORT = 6  # of the encoder, 0 to 6: the most makes the smallest files
MAX_BYTES = 90_000
"""Size limit of one image; the README shows several, in two themes each."""

IMAGES_ARE_SHOWN = """() => document.fonts.status === "loaded" && [...document.images]
  .filter((image) => {
    const box = image.getBoundingClientRect();
    const isInWindow = box.width && box.bottom > 0 && box.top < innerHeight;
    return isInWindow && image.checkVisibility(); // not those in a closed fold
  })
  .every((image) => image.complete && image.naturalWidth)"""

COLORS_ARE_STILL = """async () => {
  const moves = () => document.getAnimations().some((each) => each instanceof CSSTransition);
  for (let calm = 0; calm < 3; calm = moves() ? 0 : calm + 1)
    await new Promise(requestAnimationFrame);
}"""
"""Returns after three frames without a transition: a change of theme starts one in each element."""


@dataclass(frozen=True)
class Frame:
    """Size of a browser window in CSS pixels, and device pixels per CSS pixel."""

    width: int
    height: int
    scale: float = 1


DESKTOP = Frame(1440, 900)
PHONE = Frame(390, 844, scale=2)


class ImageTooLarge(Exception):
    """An image exceeds `MAX_BYTES`; the message names it and its size."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the chromium of this machine. Raises FileNotFoundError if there is none."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise FileNotFoundError(f"None of these is installed: {', '.join(CHROMIUM)}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Camera:
    """Opens pages of the app at `url` and writes photographs into the folder `out`."""

    browser: Browser
    url: str
    out: Path

    @contextmanager
    def page(self, frame: Frame = DESKTOP) -> Iterator[Page]:
        """A new tab in a browser profile of its own, without animations."""
        context: BrowserContext = self.browser.new_context(
            base_url=self.url,
            viewport={"width": frame.width, "height": frame.height},
            device_scale_factor=frame.scale,
            reduced_motion="reduce",
            locale="en-US",
        )
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()
        context.close()

    def photograph(self, subject: Page | Locator, name: str) -> list[Path]:
        """Write `NAME-light.webp` and `NAME-dark.webp` of what the window or element shows.

        Both are of the same page, so that they differ in nothing but the theme.
        """
        page = subject if isinstance(subject, Page) else subject.page
        page.mouse.move(0, 0)  # nothing is hovered over
        paths = []
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(IMAGES_ARE_SHOWN)
            page.evaluate(COLORS_ARE_STILL)
            path = self.out / f"{name}-{theme}.webp"
            save_webp(subject.screenshot(omit_background=True), path)
            paths.append(path)
        return paths


def save_webp(png: bytes, path: Path) -> None:
    """Write a PNG as WebP of at most `MAX_BYTES`. Raises ImageTooLarge if no quality is enough."""
    for quality in QUALITIES:
        content = encode_webp(png, quality)
        if len(content) <= MAX_BYTES:
            break
    else:
        raise ImageTooLarge(f"{path.name} has {len(content):,} bytes; {MAX_BYTES:,} are allowed.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"  {path.name}  {len(content) / 1000:.0f} kB, quality {quality}", flush=True)


def encode_webp(png: bytes, quality: int) -> bytes:
    """The PNG as a WebP file of this quality, 0 to 100."""
    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(content, "WEBP", quality=quality, method=EFFORT)
    return content.getvalue()
