"""Renders that a person hid or deleted, in no list; both can be undone.

The same request draws the same image, so renders with equal images go and come back together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import utcnow
from app.registry.errors import Conflict, NotFound
from app.registry.renders import covers
from app.registry.renders.listing import ShownRender, distinct_images
from app.registry.renders.service import get_render, render_images
from app.registry.tables.adapters import Adapter
from app.registry.tables.renders import Render, RenderAdapter
from app.registry.tables.rows import UNSYNCHRONIZED

LISTED = 200


def hide_render(session: Session, adapter_id: int, render_id: int, *, hidden: bool) -> Render:
    """Hide a render on the page of an adapter, or show it again. Raises NotFound."""
    render = require_render_of(session, adapter_id, render_id)
    keys = [row.key for row in equal_renders(session, render)]
    links = sa.update(RenderAdapter).where(col(RenderAdapter.adapter_id) == adapter_id)
    links = links.where(col(RenderAdapter.render_id).in_(keys))
    session.exec(links.values(hidden=hidden), execution_options=UNSYNCHRONIZED)
    session.expire_all()
    return render


def delete_render(session: Session, render_id: int) -> Render:
    """Delete a render; it can be restored until it is deleted for good.

    An adapter whose cover it is gets its usual cover. Raises Conflict if it has not ended.
    """
    render = get_render(session, render_id)
    if not render.state.is_final:
        raise Conflict(
            "This image is still being generated. Cancel it first, then delete the image."
        )
    if render.deleted_at is not None:
        return render
    equal = _set_deleted(session, render, utcnow())
    images = [image.sha256 for image in render_images(session, render.key)]
    for adapter, links in _links(session, equal):
        if adapter.cover_sha256 in images:
            for link in links:
                link.was_cover = True
            covers.put_cover(session, adapter, covers.usual_cover(session, adapter))
    return render


def restore_render(session: Session, render_id: int) -> Render:
    """Undo `delete_render`, also for the cover unless another one was chosen since."""
    render = get_render(session, render_id)
    equal = _set_deleted(session, render, None)
    images = [image.sha256 for image in render_images(session, render.key)]
    for adapter, links in _links(session, equal):
        was_cover = any(link.was_cover for link in links)
        if was_cover and adapter.cover_sha256 == covers.usual_cover(session, adapter):
            covers.put_cover(session, adapter, images[0] if images else adapter.cover_sha256)
        for link in links:
            link.was_cover = False
    return render


def equal_renders(session: Session, render: Render) -> list[Render]:
    """The render and those of its owner with the same images."""
    same = select(Render).where(
        Render.owner_id == render.owner_id,
        Render.cache_key == render.cache_key,
        Render.precision == render.precision,
        Render.status == render.status,
    )
    return list({row.key: row for row in (render, *session.exec(same))}.values())


def list_hidden(session: Session, adapter_id: int) -> list[ShownRender]:
    """The hidden renders of an adapter, the newest first."""
    is_hidden = col(RenderAdapter.hidden).is_(True)
    return _removed(session, adapter_id, is_hidden, col(Render.deleted_at).is_(None))


def list_deleted(session: Session, adapter_id: int) -> list[ShownRender]:
    """The deleted renders of an adapter, the newest first."""
    return _removed(session, adapter_id, col(Render.deleted_at).is_not(None))


def has_removed(session: Session, adapter_id: int) -> bool:
    """True if a render of this adapter is hidden or deleted."""
    removed = col(RenderAdapter.hidden).is_(True) | col(Render.deleted_at).is_not(None)
    query = select(RenderAdapter.render_id).join(Render).where(removed)
    return session.exec(query.where(RenderAdapter.adapter_id == adapter_id)).first() is not None


def _removed(
    session: Session, adapter_id: int, *conditions: sa.ColumnElement[bool]
) -> list[ShownRender]:
    query = (
        select(Render)
        .join(RenderAdapter, col(RenderAdapter.render_id) == col(Render.id))
        .where(RenderAdapter.adapter_id == adapter_id, *conditions)
        .order_by(col(Render.id).desc())
    )
    renders = session.exec(query.limit(LISTED)).all()
    return distinct_images(session, renders)


def require_render_of(session: Session, adapter_id: int, render_id: int) -> Render:
    """A render that used this adapter. Raises NotFound."""
    if session.get(RenderAdapter, (adapter_id, render_id)) is None:
        raise NotFound("This adapter has no such image; it may have been deleted for good.")
    return get_render(session, render_id)


def _set_deleted(session: Session, render: Render, moment: datetime | None) -> list[Render]:
    """Set when the render and its equals were deleted; those rows."""
    equal = equal_renders(session, render)
    for row in equal:
        row.deleted_at = moment
        session.add(row)
    session.flush()
    return equal


def _links(
    session: Session, renders: Sequence[Render]
) -> list[tuple[Adapter, list[RenderAdapter]]]:
    """The adapters that these renders used, with the rows that link them."""
    query = (
        select(RenderAdapter, Adapter)
        .join(Adapter, col(Adapter.id) == col(RenderAdapter.adapter_id))
        .where(col(RenderAdapter.render_id).in_([render.key for render in renders]))
    )
    found: dict[int, tuple[Adapter, list[RenderAdapter]]] = {}
    for link, adapter in session.exec(query):
        found.setdefault(adapter.key, (adapter, []))[1].append(link)
    return list(found.values())
