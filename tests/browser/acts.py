"""Actions that bring a page into a state, as short functions that make functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import FilePayload, Page, expect

Act = Callable[[Page], None]


@dataclass(frozen=True)
class PageState:
    """A page after an act.

    `part`: all that the act changed, so that the rest is not checked. `repeats`: it looks like a
    state before it, with other words, so that its colors are not checked again.
    """

    name: str
    address: str
    act: Act | None = None
    part: str | None = None
    repeats: bool = False


def do(*acts: Act) -> Act:
    """One act after the other."""

    def act(page: Page) -> None:
        for one in acts:
            one(page)

    return act


def click(*selectors: str) -> Act:
    """Click one after the other; each must be there."""

    def act(page: Page) -> None:
        for selector in selectors:
            page.locator(selector).first.click()

    return act


def type_into(selector: str, words: str) -> Act:
    """Fill a field."""
    return lambda page: page.locator(selector).first.fill(words)


def choose(selector: str, value: str) -> Act:
    """Choose an option of a select."""

    def act(page: Page) -> None:
        page.locator(selector).select_option(value)

    return act


def scroll_to(selector: str) -> Act:
    """Bring this into the window."""
    return lambda page: page.locator(selector).scroll_into_view_if_needed()


def see(selector: str) -> Act:
    """Wait until this is shown."""
    return lambda page: expect(page.locator(selector).first).to_be_visible()


def gone(selector: str) -> Act:
    """Wait until nothing like this is there."""
    return lambda page: expect(page.locator(selector)).to_have_count(0)


def upload(selector: str, name: str) -> Act:
    """Choose a file that is none of what is expected."""
    broken = FilePayload(name=name, mimeType="", buffer=b"<html>not that</html>")
    return lambda page: page.locator(selector).set_input_files([broken])


def open_folds(page: Page) -> None:
    """Open everything that folds, but no menu and no form of a tool."""
    page.evaluate(
        "for (const fold of document.querySelectorAll('details:not([data-menu], [name])'))"
        " fold.open = true"
    )
