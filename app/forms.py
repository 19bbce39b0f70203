"""A form as it was sent, for routes that are not async themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData


async def sent_form(request: Request) -> FormData:
    """The fields of the form in this request."""
    return await request.form()


SentForm = Annotated[FormData, Depends(sent_form)]
