"""Space for requests: a reserve for those that free some, and the quotas of those that take some.

What frees a full disk writes to the database first, so it gets a reserve of disk space. An upload
over a person's quota is refused by its length, or while it comes in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.actor import Principal, current_principal
from app.registry.blobs.disk_quota import require_room
from app.registry.errors import AppError
from app.registry.people.rights import owner_of
from app.registry.state import AppState
from app.web.access.needs import Action, Rule, rule_of
from app.web.access.things import named_things

FREEING = frozenset({"delete", "remove", "cancel"})
"""Last parts of the addresses to which pages post a form that frees space."""
FINAL = "/storage/forever/"  # begins the others
RESERVE_BYTES = 8_000_000  # the database's log of a large deletion takes some megabytes
ROOM_FACTOR = 4  # the reserve is only taken from a disk with this many times as much free
NAME = "reserve"
FORM_BYTES = 65_536  # a shorter form has no files, or small ones, which are refused when stored
NOT_STORED = "/style-searches"  # ends the addresses to which images are sent to be measured


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


class UploadQuota:
    """Refuses uploads over the quota of the person whose things they become. Raises QuotaUsedUp."""

    def __init__(self, app: ASGIApp, rules: Sequence[Rule]) -> None:
        self.app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        person = current_principal() if scope["type"] == "http" else None
        headers = Headers(scope=scope) if person else Headers()
        length = headers.get("content-length", "")
        size = int(length) if length.isdigit() else None
        is_upload = headers.get("content-type", "").startswith("multipart/form-data")
        if person is None or not is_upload or (size is not None and size <= FORM_BYTES):
            return await self.app(scope, receive, send)
        rule = rule_of(self._rules, scope)
        if rule is None or rule.action is Action.LOOK or rule.path.endswith(NOT_STORED):
            return await self.app(scope, receive, send)
        state: AppState = scope["app"].state.brushwork
        owner = await run_in_threadpool(_owner, state, person, rule, scope["path"])
        room = await run_in_threadpool(require_room, state.database, owner, size or FORM_BYTES)
        if room is None or size is not None:
            return await self.app(scope, receive, send)
        received = 0

        async def counted_receive() -> Message:
            nonlocal received, room
            message = await receive()
            received += len(message.get("body", b""))
            if room is not None and received > room:
                try:
                    room = await run_in_threadpool(require_room, state.database, owner, received)
                except AppError as error:
                    # an HTTPException passes through form parsing; its cause is answered
                    raise HTTPException(error.status, error.detail) from error
            return message

        return await self.app(scope, counted_receive, send)


def _owner(state: AppState, person: Principal, rule: Rule, path: str) -> int:
    """The owner of the thing that an address names; else the person who asks."""
    for table, reference in named_things(rule.path, path)[:1]:
        with state.database.read() as session:
            return owner_of(session, table, reference) or person.user_id
    return person.user_id
