"""No area has more lines than its budget, and every line of the product is in an area."""

from __future__ import annotations

import subprocess

import pytest

from tests import lines


def test_no_area_has_more_lines_than_its_budget() -> None:
    areas = lines.budget()
    found = lines.count(areas)
    too_long = {area: found[area] - most for area, most in areas.items() if found[area] > most}
    assert too_long == {}, "lines above the budgets in pyproject.toml, [tool.brushwork.lines]"


def test_every_file_of_the_product_is_in_an_area() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "templates/*.html", "static/css", "static/js"],
        cwd=lines.ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode:
        pytest.skip("this folder is no git checkout")
    areas = tuple(f"{area}/" for area in lines.budget())
    outside = [file for file in tracked.stdout.split() if not file.startswith(areas)]
    assert [file for file in outside if not file.startswith(("bench/", "docs/"))] == []


def test_an_area_within_another_counts_for_itself() -> None:
    areas = {"app": 0, "app/cli": 0}
    found = lines.count(areas)
    assert found["app"] + found["app/cli"] == lines.count({"app": 0})["app"]
