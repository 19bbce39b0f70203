"""Lock file of a data folder: allows one running Brushwork and records its owner."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

LOCK_NAME = "brushwork.lock"


@dataclass(frozen=True)
class LockOwner:
    """The owner of a data folder: process, URL, and the socket folder to remove after a crash."""

    pid: int
    url: str = ""
    socket_folder: str = ""


class DataFolderLock:
    """The lock on a data folder; the kernel releases it however the process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)

    def acquire(self) -> bool:
        """True if this process now holds the lock; False if another one does."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def owner(self) -> LockOwner | None:
        """The owner written last; None if there is none."""
        text = os.pread(self._descriptor, 65536, 0)
        try:
            return LockOwner(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def write(self, owner: LockOwner) -> None:
        """Record the owner of the folder."""
        text = json.dumps(asdict(owner)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def clear(self) -> None:
        """Erase the recorded owner."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Close the file, which releases the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
