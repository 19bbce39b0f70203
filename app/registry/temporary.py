"""Temporary files and folders that are removed at the next start if their process was killed.

Their process holds a lock on each until it is removed; the kernel releases the lock however the
process ends. So a process that starts knows which ones nobody owns, also in a shared folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal, get_args

try:
    import fcntl
except ImportError:  # Windows, where only age tells
    fcntl = None  # type: ignore[assignment]

Prefix = Literal["part-", "upload-", "import-", "io-", "render-"]
"""The beginning of the name of an owned file or folder; others are not removed."""

PREFIXES: tuple[str, ...] = get_args(Prefix)

OLD_PREFIXES = ("blob-",)
"""Prefixes of files that an older version wrote without a lock."""

UNLOCKED_LIFE = timedelta(hours=24)  # where files cannot be locked


def create_file(parent: Path, prefix: Prefix) -> tuple[int, Path]:
    """The descriptor of a new file, which is locked while that is open, and its path."""
    with _parent_lock(parent):
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=parent)
        _try_lock(descriptor)
    return descriptor, Path(name)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: Prefix) -> Iterator[Path]:
    """A new folder in `parent`, which is made if needed; removed with its content at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    with _parent_lock(parent):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = os.open(folder, os.O_RDONLY)
        _try_lock(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> int:
    """Remove the files and folders whose process has ended; return their number.

    What this process may not open stays: another user's, and all on a read-only disk.
    """
    if not parent.is_dir():
        return 0
    removed = 0
    with _parent_lock(parent):
        for path in list(parent.iterdir()):
            with contextlib.suppress(OSError):  # not ours, or its owner removes it too
                if _is_abandoned(path):
                    _remove(path)
                    removed += 1
    return removed


def _is_abandoned(path: Path) -> bool:
    if path.name.startswith(OLD_PREFIXES):
        return _is_old(path)
    if not path.name.startswith(PREFIXES):
        return False
    # some network file systems lock only what is open for writing
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        locked = _try_lock(descriptor)
    finally:
        os.close(descriptor)
    return _is_old(path) if locked is None else locked


def _is_old(path: Path) -> bool:
    return path.stat().st_mtime < time.time() - UNLOCKED_LIFE.total_seconds()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _parent_lock(parent: Path) -> Iterator[None]:
    """Keep others from seeing a file before it is locked."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        _try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """True if this process has the lock now, False if another has it, None if there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True
