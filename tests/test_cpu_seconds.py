"""`make costs` prints what the last `make test` cost, by folder, and fails above a budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import cpu_seconds
from tests.costs import BUDGET, TESTS, folder_of_budget

PASSES = "def test_it() -> None:\n    sum(range(2_000_000))\n"


def test_every_folder_of_the_budget_is_there() -> None:
    folders = set(BUDGET) - {cpu_seconds.COLLECTION}
    assert [folder for folder in folders if not (TESTS / folder).is_dir()] == []


@pytest.mark.parametrize(
    ("test", "folder"),
    [
        ("tests/app/jobs/test_states.py::test_it[a/b]", "app"),
        ("tests/worker/runtime/renders/test_it.py::test_it", "worker/runtime"),
        ("tests/worker/test_words.py::test_it", "worker"),
        ("tests/test_make.py::test_it", ""),
    ],
)
def test_a_test_counts_for_the_nearest_folder(test: str, folder: str) -> None:
    assert folder_of_budget(test) == folder


def test_each_process_writes_what_its_tests_cost(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PASSES)
    program = (
        "import pathlib, sys, pytest\nfrom tests import cpu_seconds\n"
        "cpu_seconds.RECORD = pathlib.Path('record')\n"
        "sys.exit(pytest.main(['-p', 'tests.cpu_seconds', '-p', 'no:cacheprovider', 'test_it.py']))"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    (file,) = (tmp_path / "record").iterdir()
    seconds = json.loads(file.read_text())
    assert seconds.keys() == {cpu_seconds.COLLECTION, "test_it.py::test_it"}
    assert all(spent > 0 for spent in seconds.values())


def test_the_report_adds_processes_and_fails_above_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu_seconds, "RECORD", tmp_path)
    assert cpu_seconds.main() == 1
    assert "Run `make test` first" in capsys.readouterr().out
    (tmp_path / "gw0.json").write_text('{"collection": 4, "tests/app/test_a.py::test_it": 2.25}')
    (tmp_path / "gw1.json").write_text('{"collection": 3, "tests/app/test_b.py::test_it": 1}')
    assert cpu_seconds.main() == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["collection", "0", "7.0", str(BUDGET["collection"])] in rows
    assert ["app", "2", "3.2", str(BUDGET["app"])] in rows
    (tmp_path / "gw2.json").write_text('{"tests/app/test_c.py::test_it": 5000}')
    assert cpu_seconds.main() == 1
    assert "5003.2" in (out := capsys.readouterr().out)
    assert "over the budget" in out
