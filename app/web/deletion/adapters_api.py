"""REST: deleted adapters, and deleting them for good."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import Field

from app.registry.blobs import deletion as freeing
from app.registry.deletion import adapters as deleted
from app.web.answers import Answer
from app.web.deletion.removals import Removal, of_adapter
from app.web.problems import problems
from app.web.rest.lists import Part
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


@router.get("/adapters/deleted")
def list_deleted_adapters(state: State, part: Part) -> list[DeletedOut]:
    """List deleted adapters, the last one first."""
    with state.database.read() as session:
        found = deleted.list_deleted(session)
    return [
        DeletedOut.of(row.adapter, versions=row.version_count)
        for row in part.of(found.items, lambda row: (str(row.adapter.deleted_at), row.adapter.key))
    ]


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
