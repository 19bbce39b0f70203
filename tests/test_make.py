"""`make test` and `make check` pass only if style, layers, types and tests all do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("ruff", "lint-imports", "mypy", "python")  # the last runs pytest


@pytest.mark.parametrize("target", ["test", "check"])
@pytest.mark.parametrize("failing", [None, *TOOLS])
def test_each_tool_runs_and_its_failure_is_one_of_make(
    target: str, failing: str | None, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        script = tmp_path / "bin" / tool
        script.write_text(f"#!/bin/sh\necho {tool} ran\nexit {int(tool == failing)}\n")
        script.chmod(0o755)
    for stamp in (".installed", ".installed-test"):
        (tmp_path / stamp).touch()
    done = subprocess.run(
        ["make", target, f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (failing is None), done.stdout + done.stderr
    assert failing is None or f"{failing} ran" in done.stdout
    if failing not in ("ruff", "lint-imports"):  # these take a second and come first
        assert {f"{tool} ran" for tool in TOOLS} <= set(done.stdout.splitlines())
