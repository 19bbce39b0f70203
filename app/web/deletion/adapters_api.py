"""REST: deleted adapters, and deleting them for good."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.registry.blobs import deletion as freeing
from app.registry.deletion import adapters as deleted
from app.registry.deletion.adapters import DeletedAdapter
from app.registry.paging import Page
from app.web.answers import Answer
from app.web.deletion.removals import Removal, of_adapter
from app.web.openapi import header_docs
from app.web.problems import problems
from app.web.state import State

router = APIRouter(tags=["deleted-adapters"])


class DeletedOut(Answer):
    """A deleted adapter that can be restored."""

    id: int = Field(description="Id of the adapter.")
    slug: str = Field(description="Its name in files and addresses.")
    name: str = Field(description="Its name.")
    base_family: str = Field(description="Family of base models that it fits.")
    versions: int = Field(description="Number of its versions.")
    deleted_at: datetime = Field(description="When it was deleted.")


@router.get("/adapters/deleted", responses=header_docs("link", "x-total-count"))
def list_deleted_adapters(
    request: Request,
    response: Response,
    state: State,
    page: Annotated[int, Query(ge=1, le=100_000, description="Number of the page.")] = 1,
) -> list[DeletedOut]:
    """List deleted adapters, the last one first, 24 a page."""
    with state.database.read() as session:
        found = deleted.list_deleted(session, page=page)
    response.headers["x-total-count"] = str(found.total)
    if links := _link_header(request, found):
        response.headers["link"] = links
    return [_deleted_out(row) for row in found.items]


def _link_header(request: Request, found: Page[DeletedAdapter]) -> str:
    near = {"next": found.number + 1, "prev": found.number - 1}
    return ", ".join(
        f'<{request.url.path}?page={number}>; rel="{relation}"'
        for relation, number in near.items()
        if 1 <= number <= found.pages
    )


def _deleted_out(row: DeletedAdapter) -> DeletedOut:
    return DeletedOut.of(row.adapter, versions=row.version_count)


@router.delete(
    "/adapters/{adapter_id}/forever",
    status_code=204,
    responses=problems({409: "It is not deleted yet, or a job still needs it."}),
)
def delete_adapter_forever(state: State, removal: Removal = Depends(of_adapter)) -> None:
    """Delete a deleted adapter permanently, with its versions and files.

    Images generated with it, runs that trained it and adapters derived from it stay.
    """
    freeing.delete(state, removal)
