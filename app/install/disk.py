"""Free space of the disks that an installation writes to."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from app.install import InstallError

GB = 1_000_000_000
FULL_BYTES = 20_000_000  # with less than this, pip fails at the next file


def check_space(environment: Path, *, installed: int, downloaded: int) -> None:
    """Raise InstallError if a disk has too little space.

    `installed` bytes go to the environment, `downloaded` bytes to the temporary folder until they
    are installed; both may be on one disk.
    """
    needs: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for folder, size in ((environment, installed), (Path(tempfile.gettempdir()), downloaded)):
        place = _existing(folder)
        disk = place.stat().st_dev
        needs[disk] += size
        places.setdefault(disk, place)
    for disk, size in needs.items():
        free = shutil.disk_usage(places[disk]).free
        if free < size:
            raise InstallError(
                f"The installation needs about {gigabytes(size)} on the disk of {places[disk]}, "
                f"and {gigabytes(free)} are free. Free some space, or use another disk: "
                "VENV=FOLDER for the environment, TMPDIR=FOLDER for downloads."
            )


def full_disk(environment: Path) -> Path | None:
    """The folder of the installation whose disk is full; None if none is."""
    places = map(_existing, (environment, Path(tempfile.gettempdir())))
    return next((one for one in places if shutil.disk_usage(one).free < FULL_BYTES), None)


def gigabytes(size: int) -> str:
    """The size with one decimal: `0.2 GB`; below 0.1 GB in MB."""
    return f"{size / GB:.1f} GB" if size >= GB // 10 else f"{size / 1_000_000:.0f} MB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())
