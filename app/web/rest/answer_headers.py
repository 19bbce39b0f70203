"""Headers of every answer of the API: where something new is, and no type of what is empty."""

from __future__ import annotations

import json

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerHeaders:
    """Adds `Location` to answers with status 201 and 202.

    It is the `address` of the model of the answer, with the fields of the answer and of the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        held: Message | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal held
            if message.get("status") == 204:
                del MutableHeaders(scope=message)["content-type"]
            elif message.get("status") in (201, 202):
                held = message  # until the body says what was made
                return
            elif held is not None:
                address: str = scope["route"].response_model.address
                made = scope["path_params"] | json.loads(message["body"])
                MutableHeaders(scope=held)["location"] = address.format(**made)
                await send(held)
                held = None
            await send(message)

        is_api = scope["type"] == "http" and scope["path"].startswith("/api/")
        await self.app(scope, receive, send_with_headers if is_api else send)
