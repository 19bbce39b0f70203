"""One running Brushwork per data folder: a lock file that says who has it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

LOCK_NAME = "brushwork.lock"


@dataclass(frozen=True)
class Owner:
    """Who holds a data folder: process, address, and the socket folder to clear after a crash."""

    pid: int
    url: str = ""
    socket_folder: str = ""


class DataFolderLock:
    """The lock on a data folder; the kernel releases it however the process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)

    def acquire(self) -> bool:
        """True when this process now holds the folder; False when another one does."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def owner(self) -> Owner | None:
        """Who wrote the lock last; None when nobody did."""
        text = os.pread(self._descriptor, 65536, 0)
        try:
            return Owner(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def write(self, owner: Owner) -> None:
        """Say who holds the folder."""
        text = json.dumps(asdict(owner)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def clear(self) -> None:
        """Forget who held the folder: nothing is left to clear."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Close the file; a lock that is held ends."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
