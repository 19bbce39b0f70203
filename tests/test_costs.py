"""Every test is marked with one cost, by folders that are there."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tests.costs import (
    FOLDERS,
    LONGEST_FIRST,
    ON_POSTGRESQL,
    SECONDS,
    TESTS,
    TOGETHER,
    USES_OF_SHARED_FIXTURES,
    add_markers,
    cost_of,
    cost_of_folder,
    is_left_out,
    is_wide,
    place_of,
    scope_of,
    wide_but,
    worker_count,
)


def test_every_folder_that_has_a_cost_is_there() -> None:
    assert [folder for folder in FOLDERS if not (TESTS / folder).exists()] == []
    assert set(FOLDERS.values()) < set(LONGEST_FIRST)


@pytest.mark.parametrize(
    ("place", "cost"),
    [
        ("app/jobs/test_states.py", "unit"),
        ("worker/training/test_loop.py", "slow"),
        ("worker/runtime/deeper/test_it.py", "process"),
        ("browser/test_runs.py", "browser"),
        ("browser/test_run_pages.py", "browser"),
        ("app/runs/test_checkpoint_pages.py", "pages"),
        ("app/cli/test_backup.py", "pages"),
        ("docs/test_readme.py", "unit"),
    ],
)
def test_the_nearest_folder_that_has_a_cost_counts(place: str, cost: str) -> None:
    assert cost_of_folder(TESTS / place) == cost


def test_the_longest_files_are_there_and_start_first() -> None:
    places = set(SECONDS) - set(TOGETHER.values())
    assert [place for place in places if not (TESTS / place).exists()] == []
    first = {file: place_of(f"tests/{file}::test_it", "unit") for file in SECONDS if file in places}
    assert list(first.values()) == sorted(first.values())
    assert max(first.values()) < place_of("tests/app/test_it.py::test_it", LONGEST_FIRST[0])
    beside_it = [place for file, place in first.items() if cost_of_folder(TESTS / file) != "faults"]
    longest = max(TOGETHER, key=lambda file: SECONDS[TOGETHER[file]])
    assert min(beside_it) > place_of(f"tests/{longest}::test_it", "unit")


def test_make_test_leaves_faults_and_tools_to_their_targets_and_imports_neither() -> None:
    makefile = (TESTS.parent / "Makefile").read_text()
    (left_out,) = re.findall(r'-m "(not faults[^"]*)"', makefile)
    assert "-m faults tests/faults" in makefile
    assert "-m tools" in makefile
    assert "not wide" in left_out
    assert "-m wide" in makefile
    for file in ("faults/test_proxy.py", "tools/test_style.py", "bench/test_ruined.py"):
        assert is_left_out(TESTS / file, left_out)
        assert not is_left_out(TESTS / file, cost_of_folder(TESTS / file))
    assert not is_left_out(TESTS / "browser" / "test_runs.py", left_out)
    assert is_left_out(TESTS / "browser" / "test_runs.py", "tools")


def test_no_test_of_tools_carries_a_cost_that_make_test_would_run() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if cost_of_folder(path) == "tools"]
    assert len(files) > 10
    own = re.compile(rf"pytest\.mark\.({'|'.join(LONGEST_FIRST)})\b")
    assert [path for path in files if own.search(path.read_text())] == []


def test_a_case_that_is_marked_wide_costs_that_alone(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("wide")
    assert cost_of(request.node) == "wide"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("file", ["app/runs/test_service.py", "app/jobs/test_leases.py"])
def test_most_files_run_on_postgresql_in_make_wide_only(
    database: str, file: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request.node, "path", TESTS / file)
    assert is_wide(request.node) == (database == "postgresql" and file not in ON_POSTGRESQL)


@pytest.mark.parametrize("place", sorted(ON_POSTGRESQL))
def test_files_and_tests_that_run_on_postgresql_are_there(place: str) -> None:
    file, _, test = place.partition("::")
    assert f"def {test}" in (TESTS / file).read_text()


def test_cases_of_a_product_that_are_not_kept_are_wide() -> None:
    wide = pytest.param("b", marks=pytest.mark.wide)
    assert wide_but("abc", "a", "c") == ["a", wide, "c"]


@pytest.mark.parametrize("case", ["sqlite", "postgresql"])
def test_cases_on_postgresql_are_left_to_make_test(
    case: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request.node, "path", TESTS / "app/jobs/test_leases.py")
    monkeypatch.setattr(request.node, "own_markers", [])
    monkeypatch.setattr(request.node, "callspec", SimpleNamespace(params={"database": case}))
    add_markers([request.node])
    assert [mark.name for mark in request.node.own_markers] == [
        "database" if case == "postgresql" else "unit"
    ]


def test_only_tests_that_wait_get_a_process_more_than_cores() -> None:
    assert worker_count(2, "unit") == 2
    assert worker_count(2, "not faults") == 3


def test_each_test_carries_its_cost(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("unit") is not None


def test_the_tests_of_a_file_share_one_process() -> None:
    """Fixtures of a file are made once, and tests/stack builds on what its first test trained."""
    assert "--dist loadfile" in (TESTS.parent / "Makefile").read_text()
    assert scope_of("tests/app/test_it.py::test_a[::]") == "tests/app/test_it.py"


@pytest.mark.parametrize("file", TOGETHER)
def test_files_that_share_a_costly_fixture_share_one_process(file: str) -> None:
    words = set(re.findall(r"\w+", (TESTS / file).read_text()))
    servers_or_stacks = {"trained", "trainers", "train_jobs", "limited", "forked_hub", "stack"}
    assert words & servers_or_stacks
    assert scope_of(f"tests/{file}::test_it") == TOGETHER[file]


def test_no_file_makes_a_costly_fixture_again_in_a_process_of_its_own() -> None:
    uses = re.compile("|".join(USES_OF_SHARED_FIXTURES))
    files = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.glob("*/**/test_*.py")
        if cost_of_folder(path) not in ("faults", "tools") and uses.search(path.read_text())
    }
    assert sorted(files - set(TOGETHER)) == []
