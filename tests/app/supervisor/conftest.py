"""Programs that stand for web and workers where only the supervision is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.supervisor.processes import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Log and pid folders below a temporary data folder."""
    return Folders.below(tmp_path)


def alive(pid: int) -> bool:
    """True while the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Return when `condition` holds; fail the test when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def read_pid(file: Path) -> int:
    """The process id that a program wrote into `file`, once it is there."""
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())
