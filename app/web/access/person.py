"""The person behind a request, for routes that exist only with accounts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from app.registry.actor import Principal, current_principal
from app.registry.errors import NotFound


def require_person() -> Principal:
    """The person of this request. Raises NotFound without accounts."""
    principal = current_principal()
    if principal is None:
        raise NotFound("This server has no accounts; BRUSHWORK_ACCOUNTS=on turns them on.")
    return principal


Person = Annotated[Principal, Depends(require_person)]
