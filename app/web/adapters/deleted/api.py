"""REST: deleted adapters, and deleting them for good."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.registry.adapters import deleted
from app.registry.adapters.deleted import DeletedAdapter, DeletedPage
from app.web.state import Id, State

router = APIRouter(tags=["adapters"])


class DeletedOut(BaseModel):
    """A deleted adapter that can be restored."""

    id: int
    slug: str
    name: str
    base_family: str
    versions: int
    deleted_at: datetime


@router.get("/adapters/deleted")
def index(
    request: Request,
    response: Response,
    state: State,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> list[DeletedOut]:
    """Deleted adapters, the last one first, a page of 24.

    `Link` has the addresses of the next and previous page, `X-Total-Count` says how many there are.
    """
    with state.database.read() as session:
        found = deleted.list_deleted(session, page=page)
    response.headers["x-total-count"] = str(found.total)
    if links := _link_header(request, found, page):
        response.headers["link"] = links
    return [_deleted_out(row) for row in found.items]


def _link_header(request: Request, found: DeletedPage, page: int) -> str:
    near = {"next": page + 1, "prev": page - 1}
    return ", ".join(
        f'<{request.url.path}?page={number}>; rel="{relation}"'
        for relation, number in near.items()
        if 1 <= number <= found.pages
    )


def _deleted_out(row: DeletedAdapter) -> DeletedOut:
    return DeletedOut(
        **row.adapter.model_dump(include=set(DeletedOut.model_fields)),
        versions=row.version_count,
    )


@router.delete("/adapters/{adapter_id}/forever", status_code=204)
def delete_forever(adapter_id: Id, state: State) -> None:
    """Delete a deleted adapter for good, with its versions; its files go with the next sweep.

    409 unless it was deleted before, and while a job still needs it. Images generated with it,
    runs that trained it and adapters derived from it stay.
    """
    with state.database.write() as session:
        deleted.delete_forever(session, adapter_id)
