"""Temporary files and folders of processes that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from app.registry import temporary
from app.registry.adapters.imports import unpacked
from app.registry.config import Settings
from app.registry.state import make_state
from app.registry.storage.folder import LocalBlobStore
from app.registry.temporary import create_file, remove_abandoned, temporary_folder
from app.registry.uploads import UploadedFile

PROGRAM = """
import sys, time
from pathlib import Path
from app.registry.temporary import create_file, temporary_folder
parent = Path(sys.argv[1])
descriptor, path = create_file(parent, "part-")
with temporary_folder(parent, "upload-") as folder:
    (folder / "source-0").write_bytes(b"an original with its place in it")
    print("ready", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.iterdir()}


def test_files_of_a_killed_process_are_removed_and_those_of_a_running_one_kept(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "attempt-3").mkdir()  # of somebody else
    assert remove_abandoned(tmp_path) == 0
    process.kill()
    process.communicate()

    assert remove_abandoned(tmp_path) == 2
    assert names(tmp_path) == {"attempt"}


def test_files_and_folders_in_use_by_this_process_stay(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "scratch", "io-") as folder:
        descriptor, path = create_file(tmp_path / "scratch", "part-")
        assert remove_abandoned(tmp_path / "scratch") == 0
        os.close(descriptor)
        assert remove_abandoned(tmp_path / "scratch") == 1
        assert folder.is_dir()
        assert not path.exists()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert remove_abandoned(tmp_path / "nowhere") == 0


def test_what_belongs_to_another_user_stays_and_keeps_no_process_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("part-foreign", "part-own"):
        (tmp_path / name).touch()
    open_file = os.open

    def open_own(path: Path, flags: int) -> int:
        if path.name == "part-foreign":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", open_own)
    assert remove_abandoned(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["part-foreign"]


def test_what_an_archive_was_unpacked_to_is_removed_after_a_kill(tmp_path: Path) -> None:
    archive, scratch = tmp_path / "all.zip", tmp_path / "scratch"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ink/ink.safetensors", b"weights")

    with unpacked(UploadedFile("all.zip", archive), scratch):
        (folder,) = scratch.iterdir()
        (scratch / f"{folder.name}-killed").mkdir()  # nobody has its lock
        assert remove_abandoned(scratch) == 1
        assert list(scratch.iterdir()) == [folder]


def test_files_of_an_older_version_go_after_a_day(tmp_path: Path) -> None:
    for name in ("blob-old", "blob-young"):
        (tmp_path / name).touch()
    two_days_ago = time.time() - 48 * 3600
    os.utime(tmp_path / "blob-old", (two_days_ago, two_days_ago))
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["blob-young"]


def test_without_locks_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "fcntl", None)
    for name in ("part-old", "upload-young"):
        (tmp_path / name).touch()
    two_days_ago = time.time() - 48 * 3600
    os.utime(tmp_path / "part-old", (two_days_ago, two_days_ago))
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["upload-young"]


def test_the_start_of_the_web_server_removes_uploads_of_a_killed_one(settings: Settings) -> None:
    left = settings.scratch / "upload-killed"
    left.mkdir(parents=True)
    (left / "source-0").write_bytes(b"an original with its place in it")
    half = settings.data_dir / "blobs" / "incoming" / "part-killed"
    half.parent.mkdir(parents=True)
    half.touch()
    state = make_state(settings)
    state.wakeups.close()
    state.database.dispose()
    assert not left.exists()
    assert not half.exists()
    LocalBlobStore(settings.data_dir / "blobs").put_bytes(b"still works")
