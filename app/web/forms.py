"""A form as it was sent, for routes that are not async themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData


async def sent_form(request: Request) -> AsyncIterator[FormData]:
    """The fields of the form in this request; its files are closed after the answer."""
    async with request.form() as form:
        yield form


SentForm = Annotated[FormData, Depends(sent_form)]
