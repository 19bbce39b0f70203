"""The benchmark of the pages of a dataset: that it asks for every address on both databases."""

from __future__ import annotations

import re

import pytest

from app.registry.datasets.filters import Show, Sort
from bench import dataset_pages


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_fills_two_datasets_and_asks_for_every_filter_and_order(
    kind: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
    dataset_pages.main(["--databases", kind, "--images", "60", "--samples", "1"])
    printed = capsys.readouterr().out
    assert f"| {kind}, 60 images, ms | median |" in printed
    number = r"\**(\d+)\**"
    rows = re.findall(rf"^\| (.+?) \| {number} \| {number} \| {number} \|", printed, re.M)
    names = {row[0] for row in rows}
    assert {f"filter {show}" for show in Show} | {f"order {sort}" for sort in Sort} < names
    assert all(int(median) <= int(p95) for _, median, p95, _ in rows)
