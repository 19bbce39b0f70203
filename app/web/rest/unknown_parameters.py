"""Refuses query parameters that an operation of the API does not have.

A slip in the name of a filter would otherwise list everything, in silence.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.registry.errors import InvalidInput
from app.web.problems import MAX_FIELD_NAME, MAX_FIELDS


def refuse_unknown(request: Request) -> None:
    """A dependency of all operations. Raises InvalidInput with the names of the parameters."""
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
