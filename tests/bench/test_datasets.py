"""The benchmarks of a dataset: that they ask for every page and change on both databases."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from fastapi import FastAPI

from app.registry.datasets.filters import Show, Sort
from app.registry.state import make_state
from bench import dataset_edits, dataset_pages, dataset_transfer
from tests.live_server import serve

Made = TypeVar("Made")
addresses = dataset_pages.addresses


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_fills_two_datasets_and_asks_for_every_filter_and_order(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
        # tests/app/datasets/test_filters.py asks for each on both; here a few pages do
        monkeypatch.setattr(dataset_pages, "addresses", lambda made: addresses(made)[:5])
    for times in ("REQUESTS_EACH", "AFTER_A_CHANGE"):
        monkeypatch.setattr(dataset_pages, times, 1)
    dataset_pages.main(["--databases", kind, "--images", "60", "--samples", "1"])
    printed = capsys.readouterr().out
    assert f"| {kind}, 60 images, ms | median |" in printed
    number = r"\**(\d+)\**"
    rows = re.findall(rf"^\| (.+?) \| {number} \| {number} \| {number} \|", printed, re.M)
    names = {row[0] for row in rows}
    every = {f"filter {show}" for show in Show} | {f"order {sort}" for sort in Sort}
    assert every < names if kind == "sqlite" else len(names) == 5
    assert all(int(median) <= int(p95) for _, median, p95, _ in rows)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_changes_all_images_of_two_datasets_and_undoes_that(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
    dataset_edits.main(["--databases", kind, "--images", "60", "--times", "1"])
    printed = capsys.readouterr().out
    assert f"| {kind}, 60 images, ms | wall | CPU |" in printed
    assert re.search(r"^\| undo: copy to another dataset \| [\d,]+ \| [\d,]+ \|", printed, re.M)


def once(first: Callable[..., Made], then: Callable[..., Made]) -> Callable[..., Made]:
    """A function that does `first` when it is first called, and `then` from then on."""
    calls = itertools.chain([first], itertools.repeat(then))
    return lambda *arguments: next(calls)(*arguments)


@pytest.fixture
def _few_processes(routed_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first part and the first web server are processes of their own.

    Each imports the app, which takes longer than its work on a few images.
    """

    @contextmanager
    def web_server_here(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
        settings = dataset_transfer.settings_of(folder)
        with monkeypatch.context() as patch:
            patch.setattr(routed_app.state, "brushwork", make_state(settings), raising=False)
            with serve(routed_app, settings) as live:
                yield live.url, psutil.Process()

    for name, here in (("run_part", dataset_transfer._measure), ("web_server", web_server_here)):
        patched = once(getattr(dataset_transfer, name), here)
        monkeypatch.setattr(dataset_transfer, name, patched)


@pytest.mark.usefixtures("_few_processes")
def test_images_go_out_and_in_again_and_are_recognized(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_transfer, "A_ROUND", 5)
    dataset_transfer.main(["--images", "10", "--rounds", "1", "--side", "32"])
    printed = capsys.readouterr().out
    assert re.search(r"^\| import a folder .* 10 added, 0 there already, 0 refused", printed, re.M)
    assert re.search(r"^\| import again .* 0 added, 10 there already, 0 refused", printed, re.M)
    assert re.search(r"^\| import as a new one .* 10 added, 0 there already", printed, re.M)
    assert re.search(r"^\| import again over HTTP .* 0 added, 10 there already", printed, re.M)
    assert re.search(r"^\| in an archive .* 5 images \|$", printed, re.M)
