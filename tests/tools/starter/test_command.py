"""The build as a program: what it refuses, and how it stops."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.conftest import SUBJECTS
from tools.starter import base
from tools.starter.__main__ import main
from tools.starter.checkpoint import Checkpoint
from tools.starter.errors import BuildError
from tools.starter.training_set import TrainingSet, choose_images
from tools.starter.workplace import available_memory, locked, require_memory

GIB = 1 << 30


def test_two_builds_never_write_to_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path):
        assert main(["--tiny", "--subjects", str(SUBJECTS), "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"Another build (process {os.getpid()}) is writing to {tmp_path}" in message
    assert "--out" in message
    with locked(tmp_path) as checkpoints:  # free again
        assert checkpoints.is_dir()


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "base"
    assert main(["--tiny", "--subjects", str(SUBJECTS), "--out", str(out)]) == 1
    assert f"{out} cannot be written to" in capsys.readouterr().err


def test_without_npm_and_without_tarballs_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--tiny", "--out", str(tmp_path / "base")]) == 1
    message = capsys.readouterr().err
    assert "npm is not installed" in message
    assert "@iconify-json/noto" in message
    assert "--artwork" in message


def test_too_little_memory_is_said_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.starter.__main__.available_memory", lambda: GIB + GIB // 2)
    assert main(["--artwork", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "needs about 4.0 GiB of free memory, and 1.5 GiB are free" in message
    assert "--tiny" in message


def test_memory_that_nobody_can_tell_is_no_reason_to_refuse(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    require_memory(10**18, free=available_memory(tmp_path))


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    for folder in ("proc", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8388608 kB\n")
    assert available_memory(tmp_path) == 8 * GIB
    group = tmp_path / "sys" / "fs" / "cgroup"
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{GIB}\n")
    assert available_memory(tmp_path) == 8 * GIB
    (group / "memory.max").write_text(f"{3 * GIB}\n")
    assert available_memory(tmp_path) == 2 * GIB


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "unet", "settings")
    assert checkpoint.read() is None
    checkpoint.write({"step": 3, "weights": torch.ones(2)})
    state = checkpoint.read()
    assert state is not None
    assert state["step"] == 3
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BuildError, match=r"unet\.pt is damaged\. Delete it to repeat"):
        checkpoint.read()


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """Take back what a build does with signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_signals")
def test_a_signal_saves_the_state_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build runs in this process, which sends itself the signal before the first stage."""

    def choose_and_end(*arguments: Any, **options: Any) -> TrainingSet:
        os.kill(os.getpid(), signal.SIGTERM)
        return choose_images(*arguments, **options)

    monkeypatch.setattr(base, "choose_images", choose_and_end)
    options = ["--tiny", "--device", "cpu", "--subjects", str(SUBJECTS), "--out", str(tmp_path)]
    assert main(options) == 1
    printed = capsys.readouterr()
    assert "subjects" in printed.out
    assert "Saving the state; once more to stop at once." in printed.err
    assert "Stopped in the stage 'autoencoder'" in printed.err
    assert "Run the same command to go on" in printed.err
    assert (tmp_path / "checkpoints" / "autoencoder.pt").exists()
