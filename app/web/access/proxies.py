"""Reverse proxies: the address and the scheme that they tell are believed if they are trusted."""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

log = structlog.get_logger()


class TrustedProxies:
    """Takes client and scheme from X-Forwarded-For and X-Forwarded-Proto of trusted proxies.

    A proxy that is not trusted is named once in the log: all who come through it have its address,
    so one who guesses passwords slows down all of them.
    """

    def __init__(self, app: ASGIApp, *, trusted: list[str]) -> None:
        self._believing = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]
        self._named = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._named and scope["type"] == "http":
            self._name_untrusted(scope)
        await self._believing(scope, receive, send)  # type: ignore[arg-type]

    def _name_untrusted(self, scope: Scope) -> None:
        client = scope.get("client")
        if client is None or client[0] in self._believing.trusted_hosts:
            return
        if "x-forwarded-for" in Headers(scope=scope):
            self._named = True
            log.warning(
                "proxy not trusted",
                address=client[0],
                remedy="If this is your proxy, add it to BRUSHWORK_TRUSTED_PROXIES.",
            )
