"""The list of the embedded base model's files finds what is damaged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from worker.core.starter import PATH, REPAIR
from worker.core.starter.checksums import NAME, find_damage, write_checksums

LAST_BYTE = b"!"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a base model and their list."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "model_index.json").write_text('{"_class_name": "X", "unet": ["a", "b"]}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "unet.pt").write_bytes(b"of a build that goes on")
    write_checksums(tmp_path)
    return tmp_path


def test_sound_files_are_sound(folder: Path) -> None:
    assert find_damage(folder) is None
    done = subprocess.run(["sha256sum", "-c", "--strict", NAME], cwd=folder, capture_output=True)
    assert done.returncode == 0, done


def test_only_files_of_the_base_model_are_listed(folder: Path) -> None:
    names = [line.split("  ")[1] for line in (folder / NAME).read_text().splitlines()]
    assert names == ["model_index.json", "unet/model.safetensors"]


def test_one_other_byte_is_found(folder: Path) -> None:
    file = folder / "unet" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + LAST_BYTE)
    assert find_damage(folder) == (
        f"The embedded base model is damaged or incomplete: unet/model.safetensors. {REPAIR}"
    )


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    assert "incomplete: model_index.json." in str(find_damage(folder))


def test_nothing_is_known_without_a_list(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / "model_index.json").unlink()
    assert find_damage(folder) is None


def test_the_shipped_files_are_those_in_their_list() -> None:
    """After other weights, `python -m worker.core.starter.checksums` writes the list anew."""
    assert (PATH / NAME).exists()
    assert find_damage() is None
    listed = {line.split("  ")[1] for line in (PATH / NAME).read_text().splitlines()}
    weights = {file.relative_to(PATH).as_posix() for file in PATH.rglob("*.safetensors")}
    assert weights <= listed
