"""Version of the running code: the package version and, in a checkout, the commit."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.registry.paths import ROOT

GIT_SECONDS = 5.0


@cache
def code_version() -> str:
    """`0.1.0`, or in a checkout `0.1.0+g1a2b3c4`, with `.dirty` if files differ from the commit.

    Computed once per process, because a process runs the code it loaded.
    """
    try:
        released = version("brushwork")
    except PackageNotFoundError:
        released = "unknown"
    commit = _git_commit(ROOT)
    return f"{released}+{commit}" if commit else released


def _git_commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
    try:
        answer = subprocess.run(words, capture_output=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # git is not installed, or the checkout belongs to another user
    return f"g{answer.stdout.decode().strip()}"[:60]
