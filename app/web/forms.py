"""A form as it was sent, for routes that are not async themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Form, Request
from starlette.datastructures import FormData

from app.registry.errors import InvalidInput
from app.registry.validation import too_long
from app.web.nul import refuse_nul_in

MAX_TEXT = 100_000
"""Characters of any field of a form; fields that are kept have lower bounds of their own."""
MAX_FIELD_BYTES = 4 * MAX_TEXT
OWN_LIMITS = frozenset({"pasted"})  # fields whose reader answers a long text on the form itself
MAX_FIELD_NAME = 80  # characters of a field's name that an error repeats

Text = Annotated[str, Form(max_length=MAX_TEXT)]
"""A field of a form, of any text that can be looked at."""


async def sent_form(request: Request) -> AsyncIterator[FormData]:
    """The fields of the form in this request; its files are closed after the answer.

    Raises InvalidInput for a text that nobody would type, and for the character NUL.
    """
    async with request.form() as form:
        for name, value in form.multi_items():
            if isinstance(value, str) and len(value) > MAX_TEXT and name not in OWN_LIMITS:
                sentence = too_long(value, MAX_TEXT)
                raise InvalidInput(sentence, fields={name[:MAX_FIELD_NAME]: sentence})
        refuse_nul_in(form.multi_items())
        yield form


SentForm = Annotated[FormData, Depends(sent_form)]
