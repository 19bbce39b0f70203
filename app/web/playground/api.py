"""REST: renders."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.registry.adapters.weighted import WeightedAdapter
from app.registry.db import Session
from app.registry.renders import service
from app.registry.renders.models import Render
from app.web.state import Id, State

router = APIRouter(tags=["renders"])


class RenderIn(BaseModel):
    """A render request, with the bounds of the form; an invalid value is a 422 naming its field."""

    model_config = ConfigDict(extra="forbid")
    prompt: str
    negative_prompt: str = ""
    base_model: str | int | None = Field(None, description="Absent: that of the first adapter.")
    seed: int | None = Field(None, description="Absent: a random seed.")
    steps: int = 20
    guidance: float | None = Field(None, description="Absent: the default of the base model.")
    clip_skip: int | None = Field(None, description="Absent: as the adapters were trained.")
    width: int | None = None
    height: int | None = None
    count: int = 1
    adapters: list[WeightedAdapter] = Field(default_factory=list)
    twin: bool = Field(False, description="Also render the same seed without adapters.")


class RenderImageOut(BaseModel):
    """One image of a render."""

    url: str
    thumbnail_url: str
    seed: int


class RenderCreated(BaseModel):
    """The render that was queued; one whose images were cached has succeeded."""

    id: int
    status: str
    twin_id: int | None
    images: list[RenderImageOut] = Field(description="Empty unless it has succeeded.")


class RenderOut(BaseModel):
    """A render."""

    id: int
    status: str
    progress: int
    steps: int
    images: list[RenderImageOut]
    error: str | None
    note: str | None
    prompt: str
    negative_prompt: str
    seed: int
    guidance: float
    clip_skip: int
    width: int
    height: int
    seconds: float | None
    from_cache: bool
    twin_id: int | None


def render_out(session: Session, render: Render) -> RenderOut:
    """Convert a render for the API."""
    return RenderOut(
        **render.model_dump(include=set(RenderOut.model_fields) - {"images"}),
        images=images_out(session, render),
    )


def images_out(session: Session, render: Render) -> list[RenderImageOut]:
    """Convert the images of a render for the API."""
    return [
        RenderImageOut(
            url=f"/media/{image.sha256}",
            thumbnail_url=f"/media/{image.sha256}/small",
            seed=image.seed,
        )
        for image in service.render_images(session, render.key)
    ]


@router.post("/renders", status_code=202)
def create(body: RenderIn, state: State) -> RenderCreated:
    """Queue a render, or answer with its images if they are cached.

    A 422 names every invalid field.
    """
    values = body.model_dump(exclude={"adapters"})
    request = service.RenderRequest(**values, adapters=body.adapters)
    with state.database.write() as session:
        render = service.create_render(session, request, state.store)
        images = images_out(session, render)
    return RenderCreated(id=render.key, status=render.status, twin_id=render.twin_id, images=images)


@router.get("/renders/{render_id}")
def show(render_id: Id, state: State) -> RenderOut:
    """Get a render, with its images once it has succeeded."""
    with state.database.read() as session:
        return render_out(session, service.get_render(session, render_id))


@router.post("/renders/{render_id}/cancel", status_code=202)
def cancel(render_id: Id, state: State) -> RenderOut:
    """Cancel a render; idempotent."""
    with state.database.write() as session:
        return render_out(session, service.cancel_render(session, render_id))
