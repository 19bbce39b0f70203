"""The page of deleted adapters: restore them, or delete them for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import deleted
from app.registry.adapters.deleted import DeletedPage
from app.web.state import Id, State
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


@router.post("/adapters/{adapter_id}/forever")
def delete_forever(adapter_id: Id, state: State, page: Page = 1) -> Response:
    """Permanently remove a deleted adapter."""
    with state.database.write() as session:
        deleted.delete_forever(session, adapter_id)
    address = f"/adapters/deleted?page={page}" if page > 1 else "/adapters/deleted"
    return RedirectResponse(address, status_code=303)
