"""The time zone in which pages tell the time: the browser's, as its cookie names it."""

from __future__ import annotations

import re
from contextvars import ContextVar
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.registry import wording
from app.registry.db import utcnow

ZONE_COOKIE = "zone"  # written by static/js/clock.js
ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")

_zone: ContextVar[tzinfo | None] = ContextVar("zone", default=None)


class BrowserClock:
    """Remembers the zone of a request's browser while the request is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        token = _zone.set(find_zone(HTTPConnection(scope).cookies.get(ZONE_COOKIE, "")))
        try:
            await self.app(scope, receive, send)
        finally:
            _zone.reset(token)


def find_zone(name: str) -> tzinfo | None:
    """The time zone with this IANA name; None if there is none, or this system does not know it."""
    if not ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None


def clock(moment: datetime) -> str:
    """The time of a moment on a page, in the browser's zone; else in the server's, which is named.

    18:20 today, 27 Nov, 18:20 this year, 27 Nov 2025, 18:20 before.
    """
    zone = _zone.get()
    then = _local(moment)
    text = wording.clock(then, now=_local(utcnow()))
    return text if zone else f"{text} {then:%Z}"


def full_time(moment: datetime) -> str:
    """The date and time of a moment to the second, with its zone."""
    then = _local(moment)
    return f"{then.day} {then:%B %Y, %H:%M:%S %Z}"


def _local(moment: datetime) -> datetime:
    return wording.aware(moment).astimezone(_zone.get())  # None: the server's zone
