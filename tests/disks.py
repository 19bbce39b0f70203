"""Real small file systems, for what happens when a disk is full or read-only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted_disk(place: Path, options: str) -> Iterator[Path]:
    """An empty file system in memory with these mount options, such as `size=1m` or `ro`."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"there is no mount here: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(folder: Path, *, leave: int = 0) -> None:
    """Fill the disk of this folder, but for `leave` bytes."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with (folder / "filler").open("r+b") as file:
        file.truncate(max(0, (folder / "filler").stat().st_size - leave))
