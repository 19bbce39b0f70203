"""The version of the code that is written down with each version of an adapter."""

from __future__ import annotations

import subprocess
from pathlib import Path

from app.registry.code_version import _git_commit, code_version


def git(root: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *words],
        check=True,
        capture_output=True,
    )


def test_it_names_the_release() -> None:
    assert code_version().partition("+")[0].count(".") == 2


def test_a_checkout_names_its_commit_and_that_files_differ(tmp_path: Path) -> None:
    assert _git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    clean = _git_commit(tmp_path)
    assert clean is not None
    assert clean.startswith("g")
    (tmp_path / "a.py").write_text("2")
    assert _git_commit(tmp_path) == f"{clean}.dirty"
