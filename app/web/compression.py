"""Compress pages and JSON with gzip; images and downloads never."""

from __future__ import annotations

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

LEVEL = 6  # as small as level 9 to a percent, in three quarters of the time
# lines of progress would wait until they fill a block
NEVER_COMPRESSED = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/x-ndjson",
)


class Compression(GZipMiddleware):
    """Compresses text of 500 bytes or more for clients that accept gzip.

    No page contains a secret, so the size of a compressed one reveals none (BREACH).
    """

    def __init__(self, app: ASGIApp, *, static: str) -> None:
        super().__init__(app, compresslevel=LEVEL, exclude_content_types=NEVER_COMPRESSED)
        self.static = static

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; static files, below the path `static`, compress themselves."""
        if scope["type"] == "http" and not scope["path"].startswith(self.static):
            return await super().__call__(scope, receive, send)
        return await self.app(scope, receive, send)
