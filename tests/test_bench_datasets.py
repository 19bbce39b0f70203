"""The benchmarks of a dataset: that they ask for every page and change on both databases."""

from __future__ import annotations

import re

import pytest

from app.registry.datasets.edits import find_replace
from app.registry.datasets.filters import Show, Sort
from bench import dataset_edits, dataset_pages, dataset_transfer


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_fills_two_datasets_and_asks_for_every_filter_and_order(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
    for times in ("REQUESTS_EACH", "AFTER_A_CHANGE"):
        monkeypatch.setattr(dataset_pages, times, 1)
    dataset_pages.main(["--databases", kind, "--images", "60", "--samples", "1"])
    printed = capsys.readouterr().out
    assert f"| {kind}, 60 images, ms | median |" in printed
    number = r"\**(\d+)\**"
    rows = re.findall(rf"^\| (.+?) \| {number} \| {number} \| {number} \|", printed, re.M)
    names = {row[0] for row in rows}
    assert {f"filter {show}" for show in Show} | {f"order {sort}" for sort in Sort} < names
    assert all(int(median) <= int(p95) for _, median, p95, _ in rows)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_changes_all_images_of_two_datasets_and_undoes_that(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
    monkeypatch.setattr(find_replace, "TIME_LIMIT_SECONDS", 0.2)
    dataset_edits.main(["--databases", kind, "--images", "60", "--times", "1"])
    printed = capsys.readouterr().out
    assert f"| {kind}, 60 images, ms | wall | CPU |" in printed
    assert re.search(r"^\| undo: copy to another dataset \| [\d,]+ \| [\d,]+ \|", printed, re.M)


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
