"""Lists of renders and of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.renders import Render, RenderAdapter, RenderImage

RENDERS_A_PAGE = 24


@dataclass(frozen=True)
class ShownRender:
    """A render with its first image."""

    render: Render
    image: RenderImage


def is_listed(render: type[Render] = Render, *, deleted: bool = False) -> ColumnElement[bool]:
    """Condition for renders that lists show: finished, not deleted and no drafts.

    `deleted`: for those that were deleted, instead of the others. `render`: an alias of the table.
    """
    is_there = col(render.deleted_at).is_not(None) if deleted else col(render.deleted_at).is_(None)
    is_kept = is_there & col(render.draft_slot).is_(None)
    return (col(render.status) == JobStatus.SUCCEEDED) & is_kept


def is_no_twin(render: type[Render] = Render) -> ColumnElement[bool]:
    """Condition for renders that are not the twin of another one."""
    of_twin = aliased(Render)
    return ~select(1).where(col(of_twin.twin_id) == col(render.id)).exists()


def recent_renders(session: Session, *, limit: int = RENDERS_A_PAGE) -> list[Render]:
    """The newest finished renders without twins, newest first."""
    query = (
        select(Render).where(is_listed(), is_no_twin()).order_by(col(Render.id).desc()).limit(limit)
    )
    return list(session.exec(query))


def adapter_renders(
    session: Session,
    adapter_id: int,
    *,
    limit: int = 12,
    before: int | None = None,
    hidden: bool = False,
) -> list[Render]:
    """The newest finished renders with this adapter; with `before`, only earlier ones.

    `hidden`: those that are hidden on its page, instead of the others.
    """
    query = (
        select(Render)
        .join(RenderAdapter, col(RenderAdapter.render_id) == col(Render.id))
        .where(
            RenderAdapter.adapter_id == adapter_id,
            RenderAdapter.hidden == hidden,
            is_listed(),
        )
        .order_by(col(RenderAdapter.render_id).desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(RenderAdapter.render_id < before)
    return list(session.exec(query))


def find_render_of(session: Session, adapter_id: int, sha256: str) -> Render | None:
    """The newest render with this adapter that has this image and is not deleted."""
    query = (
        select(Render)
        .join(RenderImage, col(RenderImage.render_id) == col(Render.id))
        .join(RenderAdapter, col(RenderAdapter.render_id) == col(Render.id))
        .where(
            RenderImage.sha256 == sha256,
            RenderAdapter.adapter_id == adapter_id,
            col(Render.deleted_at).is_(None),
        )
        .order_by(col(Render.id).desc())
    )
    return session.exec(query.limit(1)).first()


def first_images(session: Session, renders: Sequence[Render]) -> dict[int, RenderImage]:
    """The first image of each render, by render id."""
    keys = [render.key for render in renders]
    query = select(RenderImage).where(col(RenderImage.render_id).in_(keys), RenderImage.index == 0)
    return {image.render_id: image for image in session.exec(query)}


def images_of(session: Session, renders: Sequence[Render]) -> dict[int, list[RenderImage]]:
    """All images of each render in order, by render id."""
    keys = [render.key for render in renders]
    query = select(RenderImage).where(col(RenderImage.render_id).in_(keys))
    found: dict[int, list[RenderImage]] = {key: [] for key in keys}
    for image in session.exec(query.order_by(col(RenderImage.index))):
        found[image.render_id].append(image)
    return found


def distinct_images(session: Session, renders: Sequence[Render]) -> list[ShownRender]:
    """The first images of these renders, each once, with its first render.

    An image that several renders have stands at the place of the last one; renders without an
    image are left out.
    """
    images = first_images(session, renders)
    found = {
        images[render.key].sha256: ShownRender(render, images[render.key])
        for render in reversed(renders)
        if render.key in images
    }
    return list(found.values())[::-1]


def last_used_base(session: Session) -> BaseModel | None:
    """The base model of the newest render, if it can be used."""
    newest = select(Render.base_model_id).order_by(col(Render.id).desc()).limit(1)
    key = session.exec(newest).first()
    base = None if key is None else session.get(BaseModel, key)
    return base if base is not None and base.status == ModelStatus.READY else None


def last_used_adapter(session: Session) -> ResolvedAdapter | None:
    """The adapter of the newest render that has one which is still here, on a usable base model."""
    query = (
        select(Render)
        .join(RenderAdapter, col(RenderAdapter.render_id) == col(Render.id))
        .join(Adapter, col(Adapter.id) == col(RenderAdapter.adapter_id))
        .where(col(Adapter.deleted_at).is_(None))
        .order_by(col(Render.id).desc())
        .limit(RENDERS_A_PAGE)
    )
    stacks = (used for render in session.exec(query) for used in render.stack)
    return next((used for used in stacks if _can_be_used(session, used)), None)


def _can_be_used(session: Session, used: ResolvedAdapter) -> bool:
    adapter = session.get(Adapter, used.adapter_id)
    version = session.get(AdapterVersion, used.version_id)
    if adapter is None or adapter.deleted_at or version is None or version.base_model_id is None:
        return False
    base = session.get(BaseModel, version.base_model_id)
    return base is not None and base.status == ModelStatus.READY
