"""Measures pages of a running server in a real browser: `python -m bench.pages URL PATH…`.

Prints for each page what a cold load transfers (bytes on the wire with headers, as Chromium counts
them), how many elements it has, the median time to its last byte over plain HTTP with gzip, and
how many requests it makes in a minute after it has loaded. Nothing else should use the machine.

    python -m bench.pages http://127.0.0.1:8188 / /play /runs/1 /datasets/chalkboard
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, sync_playwright

TIMED_REQUESTS = 21
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass(frozen=True)
class PageFigures:
    """Bytes of a cold load by resource type, elements, and requests in the time watched."""

    bytes_by_type: dict[str, int]
    elements: int
    seconds: float
    html_bytes: int
    requests: int


def measure(browser: Browser, url: str, path: str, *, watch_seconds: float) -> PageFigures:
    """Load a page without a cache, then watch the requests it makes."""
    context = browser.new_context(base_url=url)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    types: dict[str, str] = {}
    received: Counter[str] = Counter()

    def begin(event: dict[str, Any]) -> None:
        types[event["requestId"]] = event["type"]

    def end(event: dict[str, Any]) -> None:
        received[types[event["requestId"]]] += int(event["encodedDataLength"])

    session.on("Network.responseReceived", begin)
    session.on("Network.loadingFinished", end)
    page.goto(path)
    page.wait_for_load_state("networkidle")
    cold = dict(received)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.wait_for_timeout(1000 * watch_seconds)
    elements = page.evaluate("document.querySelectorAll('*').length")
    context.close()
    seconds, html_bytes = time_html(url + path)
    return PageFigures(cold, elements, seconds, html_bytes, len(requests))


def time_html(address: str) -> tuple[float, int]:
    """The median seconds to the last byte of the HTML, and its compressed size."""
    request = Request(address, headers={"accept-encoding": "gzip", "accept": "text/html"})
    times, size = [], 0
    for _ in range(TIMED_REQUESTS):
        begin = time.perf_counter()
        with urlopen(request) as answer:
            size = len(answer.read())
        times.append(time.perf_counter() - begin)
    return statistics.median(times), size


def print_figures(path: str, figures: PageFigures, watch_seconds: float) -> None:
    """One line for a page, in kB and milliseconds, and one for the types of its resources."""
    total = sum(figures.bytes_by_type.values())
    print(
        f"{path:<32} {total / 1000:8.1f} kB  HTML {figures.html_bytes / 1000:6.1f} kB "
        f"{1000 * figures.seconds:6.1f} ms  {figures.elements:5} elements  "
        f"{figures.requests * 60 / watch_seconds:4.0f} requests/min"
    )
    parts = sorted(figures.bytes_by_type.items(), key=lambda part: -part[1])
    print("    " + ", ".join(f"{name} {size / 1000:.1f}" for name, size in parts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the pages and print their figures."""
    parser = argparse.ArgumentParser(description="Measures pages of a running server.")
    parser.add_argument("url", help="such as http://127.0.0.1:8188")
    parser.add_argument("paths", nargs="+", help="such as /play")
    parser.add_argument("--watch", type=float, default=60.0, help="seconds to count requests")
    given = parser.parse_args(arguments)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for path in given.paths:
            figures = measure(browser, given.url, path, watch_seconds=given.watch)
            print_figures(path, figures, given.watch)
        browser.close()


if __name__ == "__main__":
    main()
