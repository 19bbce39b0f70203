"""Requests that free space work on a full disk too: they get the reserve."""

from __future__ import annotations

from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from app.registry.space import SpaceReserve

FREEING = frozenset({"delete", "forever", "remove", "cancel"})
"""Last parts of the addresses to which pages post a form that frees space."""


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
    return method == "DELETE" or (method == "POST" and path.rpartition("/")[2] in FREEING)
