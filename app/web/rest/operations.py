"""What holds for every operation of the API: its query parameters, and headers of its answers."""

from __future__ import annotations

import json

from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.errors import InvalidInput
from app.web.problems import MAX_FIELD_NAME, MAX_FIELDS


def refuse_unknown(request: Request) -> None:
    """A dependency of all operations. Raises InvalidInput with the names of unknown parameters.

    A slip in the name of a filter would otherwise list everything, in silence.
    """
    if not request.query_params:
        return
    known = sorted(_names(request.scope["route"].dependant))
    unknown = [name[:MAX_FIELD_NAME] for name in request.query_params if name not in known]
    if unknown:
        takes = f"It has: {', '.join(known)}." if known else "It has none."
        sentence = f"This operation has no parameter “{unknown[0]}”. {takes}"
        raise InvalidInput(sentence, fields=dict.fromkeys(unknown[:MAX_FIELDS], sentence))


def _names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_names, dependant.dependencies))


class AnswerHeaders:
    """Adds `Location` to answers with status 201 and 202; what is empty has no type.

    The location is the `address` of the model of the answer, with the fields of the answer and of
    the path.
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
