"""Version of the running code: the release and, in a checkout, the commit."""

from __future__ import annotations

import subprocess
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from app.registry.paths import IS_CHECKOUT, ROOT

GIT_SECONDS = 5.0


@cache
def release() -> str:
    """The version in `pyproject.toml`, such as `0.2.0`.

    A checkout reads the file itself: the metadata of an installed Brushwork may be older, or belong
    to another folder.
    """
    if not IS_CHECKOUT:
        return version("brushwork")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


@cache
def code_version() -> str:
    """`0.2.0`, or in a checkout `0.2.0+g1a2b3c4`, with `.dirty` if files differ from the commit.

    Computed once per process, because a process runs the code it loaded.
    """
    commit = _git_commit(ROOT)
    return f"{release()}+{commit}" if commit else release()


def _git_commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
    try:
        answer = subprocess.run(words, capture_output=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # git is not installed, or the checkout belongs to another user
    return f"g{answer.stdout.decode().strip()}"[:60]
