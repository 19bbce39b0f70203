"""A data folder, and the command as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry.config import Settings
from app.registry.state import make_state
from app.registry.storage.folder import LocalBlobStore
from tests.io_workers import io_worker

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `.env` and no variable of the machine reaches these tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BRUSHWORK_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_dir(tmp_path: Path, sqlite_template: Path) -> Path:
    """A migrated data folder with one blob."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "brushwork.db").write_bytes(sqlite_template.read_bytes())
    LocalBlobStore(folder / "blobs").put_bytes(b"a picture")
    return folder


@pytest.fixture
def worker(folder: list[str]) -> Iterator[None]:
    """An io worker at work on the data folder that the arguments `folder` name."""
    state = make_state(Settings(data_dir=Path(folder[1])))
    with io_worker(state):
        yield
    state.close()


def brushwork(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The finished command, run as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
