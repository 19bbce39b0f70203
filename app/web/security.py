"""Security headers, cross-site requests and limits of bodies, as pure ASGI middleware.

Who may ask for what is decided in `app/web/access/`.

Cross-site requests are refused by Fetch Metadata with the Origin as fallback (OWASP's cheat
sheet on CSRF, "Fetch Metadata"): browsers send the first only to https and to localhost.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.errors import AppError, Forbidden, TooLarge
from app.registry.wording import size_text
from app.web.access.needs import SAFE_METHODS
from app.web.addresses import MAX_ADDRESS, host_of
from app.web.build import CACHED, fingerprint
from app.web.build import HEADER as BUILD
from app.web.problems import problem_response

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


class CommonHeaders:
    """Adds the headers of security, which a route may set itself, and that of the running build.

    `static/js/update.js` compares the build with the one in the head of the page.
    """

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
                if not scope["path"].startswith(CACHED):
                    headers[BUILD] = fingerprint()
            await send(message)

        return await self.app(scope, receive, send_with_headers)


class HeadAsGet:
    """Answers HEAD as GET, without the body: wherever GET is answered, HEAD is too.

    The rest of the body is not read: the answer ends with its head, and the route sees a client
    that has disconnected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body", "body": b""})

        async def receive_until_ended() -> Message:
            return {"type": "http.disconnect"} if ended else await receive()

        return await self.app({**scope, "method": "GET"}, receive_until_ended, send_head)


class KnownHosts:
    """Refuses requests for other host names, against DNS rebinding. Raises UnknownHost."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = False

        async def know(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal is_known
            is_known = True

        async def drop(message: Message) -> None:
            """Starlette's own refusal is plain text without a way out."""

        await TrustedHostMiddleware(know, self.allowed_hosts, www_redirect=False)(
            scope, receive, drop
        )
        if not is_known:
            raise UnknownHost(
                "This server does not answer to that host name. Add the name to "
                "BRUSHWORK_ALLOWED_HOSTS, then restart it."
            )
        return await self.app(scope, receive, send)


class UnknownHost(AppError, status=400, title="Unknown host name", code="unknown_host"):
    """The request names a host that this server does not answer to."""


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
    return None if host_of(origin) == headers.get("host") else sentence


class AddressTooLong(AppError, status=414, title="Address too long", code="uri_too_long"):
    """The path with its query is longer than any that Brushwork makes."""


class AddressLimit:
    """Refuses addresses over their limit, before they are compared with those of routes.

    Raises AddressTooLong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            length = len(scope.get("raw_path") or b"") + len(scope["query_string"])
            if length > MAX_ADDRESS:
                raise AddressTooLong(
                    f"The address has more than {MAX_ADDRESS:,} characters. Send a shorter one."
                )
        return await self.app(scope, receive, send)


class BodyLimit:
    """Refuses bodies over their limit: by Content-Length at once, else while they come in.

    Raises TooLarge.
    """

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
            raise body_too_large(limit)
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
