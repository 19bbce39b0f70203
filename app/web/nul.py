"""Refuses the character NUL in whatever a request says: PostgreSQL cannot store it.

A dependency of all routes, so that no field has to look for it by itself. Names of files are no
text of a person; what stores them leaves such characters out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import Request

from app.registry.errors import InvalidInput
from app.registry.validation import named_reasons
from app.web.problems import MAX_FIELD_NAME, MAX_FIELDS, status_error

NUL = "\0"
SENTENCE = "This has the character NUL (U+0000), which cannot be stored. Remove it."


async def refuse_nul(request: Request) -> None:
    """Look at the path, the query and the body, as far as FastAPI has read it for the route.

    Raises InvalidInput with the fields; for a path, NotFound: nothing is called so.
    """
    if any(NUL in str(value) for value in request.path_params.values()):
        raise status_error(404)
    refuse_nul_in(request.query_params.multi_items())
    form = request._form  # what is read is known nowhere else
    if form is not None:
        refuse_nul_in(form.multi_items())
    elif hasattr(request, "_json"):
        refuse_nul_in(_entries(await request.json()))


def refuse_nul_in(fields: Iterable[tuple[str, object]]) -> None:
    """Look at these names with their values. Raises InvalidInput with a sentence for each field."""
    wrong = {}
    for name, value in fields:
        if NUL in name or (isinstance(value, str) and NUL in value):
            wrong[name.replace(NUL, "")[:MAX_FIELD_NAME] or "body"] = SENTENCE
            if len(wrong) >= MAX_FIELDS:
                break
    if wrong:
        raise InvalidInput(named_reasons(wrong), fields=wrong)


def _entries(document: object) -> Iterator[tuple[str, object]]:
    """Everything in a JSON document, each with its place: “adapters.0.alias”."""
    waiting = [("", document)]
    while waiting:
        place, value = waiting.pop()
        yield place, value
        if isinstance(value, (dict, list)):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{place}.{key}" if place else str(key), entry) for key, entry in entries]
