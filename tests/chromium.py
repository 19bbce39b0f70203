"""This machine's chromium, with nothing in it that only a person in front of it would use."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")
"""Programs with the same engine; the first has no window and takes half the time for a page."""

PATH = next(filter(None, map(shutil.which, NAMES)), None)

WASTE = (
    "SpareRendererForSitePerProcess",
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxPopup",
)
"""Half of what a new window costs: the lists below its address bar and a process kept ready."""

PLAYWRIGHTS = (
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "TcpPortRandomizationWin",
    "ThirdPartyStoragePartitioning",
    "msEdgeUpdateLaunchServicesPreferredVersion",
    "msForceBrowserSignIn",
)
"""Features that Playwright turns off; chromium obeys only the last list, so ours repeats them."""

# no page lives long enough to win by compiling more than once or by freeing memory soon
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--js-flags=--no-opt,--no-maglev,--no-flush-bytecode,--min-semi-space-size=64",
    f"--disable-features={','.join(PLAYWRIGHTS + WASTE)}",
)


def wait_for_pages_that_clicks_open() -> None:
    """Let a click, and the check of an address after it, wait until the page has its scripts.

    Playwright waits until the page begins: a test that acts at once acts before the scripts listen,
    and nothing happens. On a slow machine a click returns while the old page is still there, and
    the new address is the first sign of the new page.
    """
    from playwright.sync_api import Locator
    from playwright.sync_api._generated import PageAssertions

    click, has_url = Locator.click, PageAssertions.to_have_url

    @functools.wraps(click)
    def click_and_load(locator: Locator, **options: Any) -> None:
        click(locator, **options)
        if not locator.page.is_closed():
            locator.page.wait_for_load_state()

    @functools.wraps(has_url)
    def has_url_and_loads(expected: PageAssertions, *args: Any, **options: Any) -> None:
        has_url(expected, *args, **options)
        expected._sync(expected._impl_obj._actual_page.wait_for_load_state("load", None))

    if not hasattr(click, "__wrapped__"):
        Locator.click = click_and_load  # type: ignore[method-assign]
        PageAssertions.to_have_url = has_url_and_loads  # type: ignore[method-assign]


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser at `PATH`, until the end of the block."""
    from playwright.sync_api import sync_playwright

    wait_for_pages_that_clicks_open()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=FLAGS)
        yield browser
        browser.close()


class SharedBrowser:
    """One browser for tests that follow one another; `close` ends it before other tests run.

    Playwright keeps an event loop in the thread of the tests, in which no other loop can run then.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._browser: Browser | None = None

    def get(self) -> Browser:
        """The browser, started where none runs."""
        if self._browser is None or not self._browser.is_connected():
            self.close()
            self._browser = self._open.enter_context(open_browser())
        return self._browser

    def close(self) -> None:
        """End the browser if it runs."""
        self._browser = None
        self._open.close()
