"""Requests that free space work on a full disk too: they get a reserve of disk space.

Even what frees a full disk writes to the database first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

FREEING = frozenset({"delete", "remove", "cancel"})
"""Last parts of the addresses to which pages post a form that frees space."""
FINAL = "/storage/forever/"  # begins the others
RESERVE_BYTES = 8_000_000  # the database's log of a large deletion takes some megabytes
ROOM_FACTOR = 4  # the reserve is only taken from a disk with this many times as much free
NAME = "reserve"


class SpaceReserve:
    """A file in the data folder that gives its space to what frees more."""

    def __init__(self, folder: Path, *, size: int = RESERVE_BYTES) -> None:
        self._file = folder / NAME
        self._folder = folder
        self._size = size

    def keep(self) -> None:
        """Take the reserve, unless the disk is too full for it."""
        with contextlib.suppress(OSError):  # read-only or full: then there is none
            if self._is_kept() or self._free() < ROOM_FACTOR * self._size:
                return
            with self._file.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size)
                else:  # random, as a file system may store nothing for zeros
                    file.write(os.urandom(self._size))

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Within the block the space of the reserve is free, if the disk has no other."""
        with contextlib.suppress(OSError):
            if self._free() < self._size:
                self._file.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.keep()

    def _is_kept(self) -> bool:
        return self._file.exists() and self._file.stat().st_size == self._size

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


class SpaceLender:
    """Lends the reserve of the data folder to the requests that free space."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app = app
        self.reserve = SpaceReserve(folder)
        self.reserve.keep()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not frees_space(scope["method"], scope["path"]):
            return await self.app(scope, receive, send)
        with self.reserve.lend():
            return await self.app(scope, receive, send)


def frees_space(method: str, path: str) -> bool:
    """True for a request that deletes or ends something."""
    is_form = path.startswith(FINAL) or path.rpartition("/")[2] in FREEING
    return method == "DELETE" or (method == "POST" and is_form)
