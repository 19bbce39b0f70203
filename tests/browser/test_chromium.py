"""The browser of the tests lacks only what no page can see."""

from __future__ import annotations

import contextlib

import psutil
from playwright.sync_api import Browser

from tests import chromium as browsers

SWITCH = "--disable-features="


def test_all_that_playwright_turns_off_is_off(chromium: Browser) -> None:
    assert chromium.is_connected()
    commands = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            commands.append(process.cmdline())
    lists = [
        [word.removeprefix(SWITCH).split(",") for word in command if word.startswith(SWITCH)]
        for command in commands
        if "--remote-debugging-pipe" in command
    ]
    for theirs, ours in lists:
        assert set(theirs) <= set(ours), "add what is missing to tests/chromium.py"
        assert set(browsers.WASTE) <= set(ours)
    assert lists
