"""REST: the playground images of an adapter."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field, StrictBool

from app.registry.adapters import service
from app.registry.renders import listing, removal
from app.registry.tables.renders import Render, RenderImage
from app.web.access.needs import Action, Router
from app.web.answers import Answer, image_urls
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import AdapterId, Id, Reading, Writing

router = Router(tags=["versions"])


class RenderBrief(Answer):
    """A render that used the adapter, with its first image."""

    id: int = Field(description="Id of the render.")
    prompt: str = Field(description="Its prompt.")
    seed: int = Field(description="Its seed.")
    url: str | None = Field(description="Address of its first image.")
    thumbnail_url: str | None = Field(description="Address of a small WebP of its first image.")
    sha256: str | None = Field(description="SHA-256 of its first image: `cover_sha256` accepts it.")
    hidden: bool = Field(description="True if the page of the adapter does not show it.")


class RenderOfAdapterPatch(BaseModel):
    """The change of how an adapter shows a render."""

    model_config = example(hidden=True)
    hidden: StrictBool = Field(description="True: the page of the adapter does not show it.")


@router.get("/adapters/{adapter_id}/renders", Action.LOOK)
def list_adapter_renders(
    adapter_id: AdapterId,
    session: Reading,
    part: Part,
    hidden: Annotated[bool, Query(description="Those that are hidden, not the others.")] = False,
) -> list[RenderBrief]:
    """List the renders that used an adapter, newest first."""
    adapter = service.get_adapter(session, adapter_id)
    rows = listing.adapter_renders(
        session, adapter.key, limit=part.size, before=part.after, hidden=hidden
    )
    found = part.cut(rows, lambda row: row.key)
    images = listing.first_images(session, found)
    return [_brief(row, images.get(row.key), hidden=hidden) for row in found]


@router.patch(
    "/adapters/{adapter_id}/renders/{render_id}",
    Action.EDIT,
    responses=problems({404: "This adapter has no such render."}),
)
def change_adapter_render(
    adapter_id: AdapterId, render_id: Id, body: RenderOfAdapterPatch, session: Writing
) -> RenderBrief:
    """Hide a render on the page of an adapter, or show it again.

    Renders with the same image are hidden and shown with it.
    """
    adapter = service.get_adapter(session, adapter_id)
    row = removal.hide_render(session, adapter.key, render_id, hidden=body.hidden)
    image = listing.first_images(session, [row]).get(row.key)
    return _brief(row, image, hidden=body.hidden)


def _brief(row: Render, image: RenderImage | None, *, hidden: bool) -> RenderBrief:
    sha256 = image.sha256 if image else None
    return RenderBrief.of(row, hidden=hidden, sha256=sha256, **image_urls(sha256))
