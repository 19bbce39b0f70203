"""REST: deleted adapters."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from app.registry.deletion import adapters as deleted
from app.web.answers import Answer
from app.web.rest.lists import Part
from app.web.state import State

router = APIRouter(tags=["deleted-adapters"])


class DeletedAdapterOut(Answer):
    """A deleted adapter that can be restored."""

    id: int = Field(description="Id of the adapter.")
    slug: str = Field(description="Its name in files and addresses.")
    name: str = Field(description="Its name.")
    base_family: str = Field(description="Family of base models that it fits.")
    versions: int = Field(description="Number of its versions.")
    deleted_at: datetime = Field(description="When it was deleted.")


@router.get("/adapters/deleted")
def list_deleted_adapters(state: State, part: Part) -> list[DeletedAdapterOut]:
    """List deleted adapters, the last one first."""
    with state.database.read() as session:
        found = deleted.list_deleted(session)
    return [
        DeletedAdapterOut.of(row.adapter, versions=row.version_count)
        for row in part.of(found.items, lambda row: (str(row.adapter.deleted_at), row.adapter.key))
    ]
