"""A form as it was sent, for routes that are not async themselves, and its files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Form, Request
from starlette.datastructures import FormData, UploadFile

from app.registry.errors import InvalidInput
from app.registry.uploads import UploadedFile
from app.registry.validation import named_reasons, too_long
from app.web.nul import refuse_nul_in

MAX_TEXT = 100_000
"""Characters of any field of a form; fields that are kept have lower bounds of their own."""
MAX_FIELD_BYTES = 4 * MAX_TEXT
MAX_FILES = 500  # of one form
MAX_FIELD_NAME = 80  # characters of a field's name that an error repeats
MAX_FILENAME = 1_000  # characters; the end of a name has its suffix
MAX_SHOWN_AGAIN = 2_000_000  # bytes of a field of a form; the body of one has no more

Text = Annotated[str, Form(max_length=MAX_TEXT)]
"""A field of a form, of any text that can be looked at."""


async def typed_form(request: Request) -> AsyncIterator[FormData]:
    """The fields of the form in this request; its files are closed after the answer.

    Raises InvalidInput for the character NUL.
    """
    async with request.form(max_files=MAX_FILES, max_part_size=MAX_SHOWN_AGAIN) as form:
        refuse_nul_in(form.multi_items())
        yield form


TypedForm = Annotated[FormData, Depends(typed_form)]
"""For a form that is shown again with each field that is wrong, also if its text is too long."""


async def sent_form(form: TypedForm) -> FormData:
    """The same. Raises InvalidInput, with the fields, also for a text that nobody would type."""
    wrong = {
        name[:MAX_FIELD_NAME]: too_long(value, MAX_TEXT)
        for name, value in form.multi_items()
        if isinstance(value, str) and len(value) > MAX_TEXT
    }
    if wrong:
        raise InvalidInput(named_reasons(wrong), fields=wrong)
    return form


SentForm = Annotated[FormData, Depends(sent_form)]


def uploaded(file: UploadFile) -> UploadedFile:
    """The file with its name; read from the request's own temporary file."""
    return UploadedFile((file.filename or "")[-MAX_FILENAME:], file.file)
