"""`brushwork caption-models`: a model of this machine is added, used and removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.main import main
from app.registry.config import Settings
from app.registry.state import make_state
from tests.caption_folders import blip_folder


@pytest.fixture
def folder(no_surroundings: None, data_dir: Path) -> list[str]:
    """Arguments for a data folder."""
    make_state(Settings(data_dir=data_dir)).close()
    return ["--data-dir", str(data_dir)]


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """The output of the command; its errors if it fails."""
    assert main(["caption-models", *words]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_without_a_worker_a_model_is_added_and_waits(
    folder: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There are no caption models yet." in said(capsys, "list", *folder)
    (tmp_path / "blip").mkdir()
    assert "Start Brushwork" in said(capsys, "add", str(tmp_path / "blip"), *folder, code=1)
    assert "already been added" in said(capsys, "add", str(tmp_path / "blip"), *folder, code=1)
    assert said(capsys, "list", *folder).split()[:2] == ["blip", "checking"]
    assert "does not exist" in said(capsys, "add", "./nowhere", *folder, code=1)
    assert "Choose one of: blip" in said(capsys, "remove", "nobody", *folder, code=1)
    assert said(capsys, "remove", "blip", *folder) == "Removed blip.\n"
    assert (tmp_path / "blip").is_dir()


@pytest.mark.usefixtures("worker")
def test_it_waits_until_a_model_was_checked_and_names_what_is_wrong(
    folder: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "has no config.json" in said(capsys, "add", "./empty", *folder, code=1)
    assert said(capsys, "add", str(blip_folder(tmp_path)), *folder).split()[1:3] == [
        "ready",
        "BLIP",
    ]
    empty, blip = json.loads(said(capsys, "list", "--json", *folder))
    assert (empty["status"], blip["status"], blip["family"]) == ("failed", "ready", "blip")
    assert "has no config.json" in empty["error"]
