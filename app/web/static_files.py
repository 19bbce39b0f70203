"""Static files, with a content hash in their URLs and a long cache, and gzip.

Static files compress themselves, pages and JSON are compressed as they are sent; images and
downloads never are.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache, lru_cache
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from app.registry.paths import STATIC

LONG_CACHE = "public, max-age=31536000, immutable"
TEXT_SUFFIXES = (".css", ".js", ".svg")
LEVEL = 6  # as small as level 9 to a percent, in three quarters of the time
# lines of progress would wait until they fill a block
NEVER_COMPRESSED = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/x-ndjson",
)


@cache
def static_url(path: str) -> str:
    """The URL of a static file, with a content hash so that it can be cached.

    Made once per process, as the build's fingerprint: a page may have 200 of them. A file changed
    since is still served, but not cached.
    """
    return f"/static/{path}?{_hash_query(STATIC / path)}"


class StaticWithLongCache(StaticFiles):
    """Static files; the URL with the current content hash is cached for a year.

    Text is compressed once and kept in memory: it is a third of its size, and a page needs a dozen.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve the file, compressed if it is text and the client accepts that."""
        response = await super().get_response(path, scope)
        file = STATIC / path
        is_current = scope["query_string"].decode("latin-1") == _hash_query(file)
        response.headers["cache-control"] = LONG_CACHE if is_current else "no-cache"
        if not path.endswith(TEXT_SUFFIXES):
            return response
        response.headers.add_vary_header("Accept-Encoding")
        # weak, because both encodings share it
        response.headers["etag"] = f"W/{response.headers['etag']}"
        if isinstance(response, FileResponse) and _wants_gzip(scope):
            return _compressed(response)
        return response


def _wants_gzip(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    is_whole = scope["method"] == "GET" and "range" not in headers
    return is_whole and "gzip" in headers.get("accept-encoding", "")


def _compressed(response: FileResponse) -> Response:
    path = Path(response.path)
    body = _gzip_file(path, path.stat().st_mtime_ns)
    headers = MutableHeaders(raw=list(response.raw_headers))
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(body))
    return Response(body, headers=dict(headers))


def _hash_query(file: Path) -> str:
    return f"v={_content_hash(file, file.stat().st_mtime_ns)}"


@lru_cache(maxsize=256)
def _content_hash(file: Path, modified: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


@lru_cache(maxsize=256)
def _gzip_file(file: Path, modified: int) -> bytes:
    return gzip.compress(file.read_bytes(), mtime=0)


class Compression(GZipMiddleware):
    """Compresses text of 500 bytes or more for clients that accept gzip.

    No page contains a secret, so the size of a compressed one reveals none (BREACH).
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, compresslevel=LEVEL, exclude_content_types=NEVER_COMPRESSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; static files compress themselves."""
        if scope["type"] == "http" and not scope["path"].startswith("/static/"):
            return await super().__call__(scope, receive, send)
        return await self.app(scope, receive, send)
