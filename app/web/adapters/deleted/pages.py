"""The page of deleted adapters; `app.web.deletion` deletes them for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.deletion import adapters as deleted
from app.registry.deletion.adapters import DeletedPage
from app.web.state import State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

Page = Annotated[int, Query(ge=1, le=100_000)]


@dataclass(frozen=True)
class DeletedAdaptersPage:
    """Deleted adapters, the last deleted first."""

    found: DeletedPage
    page: int


@router.get("/adapters/deleted")
def index(request: Request, state: State, page: Page = 1) -> Response:
    """List deleted adapters; a page number past the end shows the last page."""
    with state.database.read() as session:
        found = deleted.list_deleted(session, page=page)
        if page > found.pages:
            page = found.pages
            found = deleted.list_deleted(session, page=page)
    return render(request, "adapters/deleted.html", DeletedAdaptersPage(found, page))
