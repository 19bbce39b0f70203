"""Access control and security headers as pure ASGI middleware, without cookies or tokens.

Cross-site requests are refused by Fetch Metadata with the Origin as fallback (OWASP's cheat
sheet on CSRF, "Fetch Metadata"): browsers send the first only to https and to localhost.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.errors import AppError, Forbidden, TooLarge
from app.registry.wording import size_text
from app.web.problems import problem_response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # probes carry no password
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class SecurityHeaders:
    """Adds the security headers; a header that a route sets has precedence."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        return await self.app(scope, receive, send_with_headers)


class SameSite:
    """Refuses cross-site requests that change something."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            refusal = cross_site_reason(Headers(scope=scope))
            if refusal:
                return await problem_response(Forbidden(refusal))(scope, receive, send)
        return await self.app(scope, receive, send)


def cross_site_reason(headers: Headers) -> str | None:
    """The reason to treat this request as cross-site; None if it is not.

    Programs send neither header, and cross-site attacks need a browser.
    """
    sentence = "This came from a page of another site, so nothing was changed."
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return None if fetch_site in ("same-origin", "none") else sentence
    origin = headers.get("origin") or headers.get("referer")
    if origin is None:
        return None
    return None if urlsplit(origin).netloc == headers.get("host") else sentence


class PasswordGate:
    """Requires the password by HTTP Basic (any user name) or as a Bearer token."""

    def __init__(self, app: ASGIApp, password: str) -> None:
        self.app = app
        self.password = password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self.app(scope, receive, send)
        if self._knows_password(Headers(scope=scope).get("authorization", "")):
            return await self.app(scope, receive, send)
        response = problem_response(
            Unauthorized("Brushwork asks for its password; the user name can be anything.")
        )
        response.headers["www-authenticate"] = 'Basic realm="Brushwork", charset="UTF-8"'
        return await response(scope, receive, send)

    def _knows_password(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip().encode("latin-1")  # as ASGI decoded it
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(given, self.password)


class Unauthorized(AppError):
    """The password is missing or wrong."""

    status = 401
    title = "Password needed"
    code = "unauthorized"


class BodyLimit:
    """Refuses bodies over their limit: by Content-Length at once, else while they come in."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int, other_bytes: int) -> None:
        self.app = app
        self.upload_bytes = upload_bytes
        self.other_bytes = other_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        is_upload = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self.upload_bytes if is_upload else self.other_bytes
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            return await problem_response(body_too_large(limit))(scope, receive, send)
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # An HTTPException passes through form parsing; `main` makes a problem of it.
                raise HTTPException(413, body_too_large(limit).detail)
            return message

        return await self.app(scope, counted_receive, send)


def body_too_large(limit: int) -> TooLarge:
    """The sentence for a body over `limit` bytes."""
    return TooLarge(
        f"This is more than {size_text(limit)} in one request. Send it in several parts."
    )
