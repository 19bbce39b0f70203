"""Real small file systems, for what happens when a disk is full or read-only."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_unless_ci

MAY_MOUNT = 1 << 21  # CAP_SYS_ADMIN in the capabilities of a process


@contextlib.contextmanager
def mounted_disk(place: Path, options: str) -> Iterator[Path]:
    """An empty file system in memory with these mount options, such as `size=1m` or `ro`.

    Skips the test where this process may not mount; in CI it may.
    """
    place.mkdir()
    if not may_mount():
        pytest.skip("this process may not mount file systems: run the tests as root")
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        skip_unless_ci(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def may_mount() -> bool:
    """True if this process has the capability to mount file systems."""
    try:
        found = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) & MAY_MOUNT)


def fill(folder: Path, *, leave: int = 0) -> None:
    """Fill the disk of this folder, but for `leave` bytes."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with (folder / "filler").open("r+b") as file:
        file.truncate(max(0, (folder / "filler").stat().st_size - leave))
