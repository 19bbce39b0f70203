"""`Idempotency-Key`: a request that is sent again with its key gets the first answer again.

Works on every POST of the API, around the routes. Only successful answers in JSON, or without a
body, are kept: after an error, the same key may be used for a request that was mended. Answers with
`cache-control: no-store` have a secret, and are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.access import idempotency
from app.registry.actor import current_actor
from app.registry.errors import InvalidInput
from app.registry.outages import OUTAGES
from app.registry.tables.people import MAX_KEY
from app.web.problems import JSON
from app.web.state import app_state

HEADER = "Idempotency-Key"
KEY = re.compile(f"[!-~]{{1,{MAX_KEY}}}")
REPLAYED = "idempotency-replayed"
SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"}
PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A key of your own, such as a UUID, for this one request. Sent again with it "
    f"within 24 hours, the request does nothing and has the first answer, with `{REPLAYED}: true`.",
    "schema": SCHEMA,
}
WRONG_KEY = f"Send one key of 1 to {MAX_KEY} letters, digits and signs of ASCII, without spaces."
OTHER_REQUEST = (
    "This key was sent before with another address or body. Send a new key with a new request."
)


class IdempotencyKeys:
    """ASGI middleware that answers a repeated POST below the path `prefix` from the database."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Raises InvalidInput, or StillRunning for one that is not answered."""
        is_http = scope["type"] == "http" and scope["method"] == "POST"
        keys = Headers(scope=scope).getlist(HEADER) if is_http else []
        if not keys or not scope["path"].startswith(self.prefix):
            return await self.app(scope, receive, send)
        if len(keys) > 1 or not KEY.fullmatch(keys[0]):
            raise InvalidInput(WRONG_KEY, fields={HEADER: WRONG_KEY})
        held, body = HeldKey(scope), HashedBody(scope, receive)
        first = await held.run(idempotency.hold_key, current_actor() or "", keys[0], held.token)
        if first is None:
            return await held.answer(self.app, scope, body, send)
        await body.read_rest()
        if body.fingerprint() != first.fingerprint:
            raise InvalidInput(OTHER_REQUEST, fields={HEADER: OTHER_REQUEST})
        answer = Response(first.body, first.status, {**first.headers, REPLAYED: "true"})
        return await answer(scope, body.receive, send)


class HeldKey:
    """A key while its request runs, until the answer is kept or the key is free again."""

    def __init__(self, scope: Scope) -> None:
        self.token = uuid.uuid4().hex
        self._database = app_state(Request(scope)).database
        self._has_ended = False

    async def run(self, change: Callable[..., Any], *args: Any, **values: Any) -> Any:
        """Call `change` with a session that writes; return its result."""

        def write() -> Any:
            with self._database.write() as session:
                return change(session, *args, **values)

        return await run_in_threadpool(write)

    async def answer(self, app: ASGIApp, scope: Scope, body: HashedBody, send: Send) -> None:
        """Let the app answer, and keep the answer before its end is sent."""
        start: Message = {}
        content = b""

        async def keep_then_send(message: Message) -> None:
            nonlocal start, content
            if message["type"] == "http.response.start":
                start = message
                if not _is_kept(start):
                    await self._end(idempotency.free_key)
            elif not self._has_ended:
                content += message.get("body", b"")
                if not message.get("more_body"):
                    await body.read_rest()
                    await self._end(
                        idempotency.keep_answer,
                        fingerprint=body.fingerprint(),
                        status=start["status"],
                        headers=dict(Headers(raw=start["headers"])),
                        body=content.decode(),
                    )
            await send(message)

        renewing = asyncio.create_task(self._renew())
        try:
            await app(scope, body.receive, keep_then_send)
        finally:
            renewing.cancel()
            await self._end(idempotency.free_key)

    async def _end(self, change: Callable[..., None], **values: Any) -> None:
        """Keep the answer or free the key, once; if that fails, the lease runs out."""
        if not self._has_ended:
            self._has_ended = True
            with contextlib.suppress(*OUTAGES):  # what the request did is done: send its answer
                await self.run(change, self.token, **values)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(idempotency.LEASE.total_seconds() / 4)
            with contextlib.suppress(*OUTAGES):
                await self.run(idempotency.keep_answer, self.token)


def _is_kept(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    is_secret = headers.get("cache-control") == "no-store"
    kind = headers.get("content-type", JSON)
    return 200 <= start["status"] < 300 and kind.startswith(JSON) and not is_secret


class HashedBody:
    """The body of a request, hashed with its address while it is read.

    Without the boundary of a form, as clients make a new one each time they send it.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        _, options = parse_options_header(Headers(scope=scope).get("content-type"))
        self._boundary = options.get(b"boundary", b"")
        address = scope["path"].encode() + b"?" + scope["query_string"] + b"\n"
        self._hash = hashlib.sha256(address)
        self._tail = b""  # may be the beginning of a boundary
        self._receive = receive
        self._is_read = False

    async def receive(self) -> Message:
        """The next message, as of ASGI."""
        message = await self._receive()
        chunk = (self._tail + message.get("body", b"")).replace(self._boundary, b"")
        hashed = max(len(chunk) - len(self._boundary), 0)
        self._hash.update(chunk[:hashed])
        self._tail = chunk[hashed:]
        self._is_read = self._is_read or not message.get("more_body", False)
        return message

    async def read_rest(self) -> None:
        """Read what is left of it; more than the limit of bodies is not read."""
        with contextlib.suppress(HTTPException):
            while not self._is_read:
                await self.receive()

    def fingerprint(self) -> str:
        """The hash of a body that was read."""
        whole = self._hash.copy()
        whole.update(self._tail)
        return whole.hexdigest()
