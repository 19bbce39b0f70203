"""The benchmark of the registry: its own sums, and that it runs on both databases."""

from __future__ import annotations

import re

import pytest

from bench import registry


def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed() -> None:
    assert registry.percentile([3, 1, 2], 0.5) == 2
    assert registry.percentile(list(range(1, 101)), 0.95) == 95
    assert registry.percentile([7], 0.95) == 7


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_fills_a_registry_and_asks_for_every_kind_of_page(
    kind: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        request.getfixturevalue("postgres_url")  # skips where there is none
    options = ["--databases", kind, "--sizes", "5", "8", "--renders", "5", "--requests", "1"]
    registry.main([*options, "--accounts"])
    printed = capsys.readouterr().out
    columns = "5 | 5 with accounts | 8 | 8 with accounts"
    assert f"| {kind}: p95 (median), ms | {columns} |" in printed
    times = r"(\d+) \((\d+)\)"
    rows = re.findall(
        rf"^\| ([\w ]+)((?: \| {times}(?: \| {times} × \d+\.\d\d)?){{2}}) \|$", printed, re.M
    )
    assert [row[0] for row in rows] == [
        name for page in registry.KINDS for name in (page, f"{page} API")
    ]
    cells = [cell for row in rows for cell in re.findall(times, row[1])]
    assert len(cells) == 4 * len(rows)
    assert all(0 < int(median) <= int(p95) for p95, median in cells)
