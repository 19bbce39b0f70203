"""Operations on renders: create, find, cancel. Lists of them are in `listing`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper
from sqlmodel import Session, col, select

from app.registry.adapters.library.search import searched_lines
from app.registry.base_models import service as base_models
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.presence import present_workers
from app.registry.renders import results, sources
from app.registry.renders.plan import RenderPlan, plan_render
from app.registry.renders.requests import RenderRequest
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.renders import Grid, GridCell, Render, RenderAdapter, RenderImage


def create_render(session: Session, request: RenderRequest, store: BlobStore) -> Render:
    """Queue a render, and on request its twin without adapters if that differs.

    Each of them is finished at once if `store` has the images of an equal request.
    """
    return store_plan(session, plan_render(session, request), store)


def store_plan(session: Session, plan: RenderPlan, store: BlobStore) -> Render:
    """Store the rows of a plan: queued, or finished if `store` has the images of an equal one.

    Raises NotFound if its base model was deleted since it was planned.
    """
    base_models.get_base_model(session, plan.base.key)
    render, twin = plan.render, plan.twin
    if plan.source is not None:
        sources.remember(session, plan.source)
    if twin is not None:
        render.twin_id = _store_render(session, twin, store).key
    store_planned(session, render, store)
    if twin is not None:  # what was asked for comes first
        twin.created_at = render.created_at + timedelta(microseconds=1)
        session.flush()
    return render


def store_planned(session: Session, render: Render, store: BlobStore) -> Render:
    """Store a planned render: queued, or finished if `store` has the images of an equal one."""
    _store_render(session, render, store)
    link_adapters(session, render)
    return render


def link_adapters(session: Session, render: Render) -> None:
    """Let the pages of its adapters find a stored render."""
    used = {used.adapter_id for used in render.stack}
    here = session.exec(select(Adapter.id).where(col(Adapter.id).in_(used)))
    for adapter_id in used.intersection(here):
        session.add(RenderAdapter(adapter_id=adapter_id, render_id=render.key))
    session.flush()


def find_finished(session: Session, request: RenderRequest) -> Render | None:
    """The newest finished render of an equal request, rather one with a twin; None: there is none.

    Raises InvalidInput like `create_render`.
    """
    planned = plan_render(session, request).render
    query = (
        select(Render)
        .where(
            Render.cache_key == planned.cache_key,
            Render.precision == planned.precision,
            Render.status == JobStatus.SUCCEEDED,
            col(Render.deleted_at).is_(None),
        )
        .order_by(col(Render.twin_id).is_(None), col(Render.id).desc())
    )
    return session.exec(query.limit(1)).first()


def _store_render(session: Session, render: Render, store: BlobStore) -> Render:
    """Store the render as finished if its images are cached, else queue it."""
    cached = results.find_cached_images(session, render, store)
    if cached is None:
        return jobs.enqueue(session, render)
    results.store_cached_render(session, render, cached)
    return render


def get_render(session: Session, render_id: int) -> Render:
    """Look up a render. Raises NotFound, or Conflict for an image of a test that has not ended."""
    render = session.get(Render, render_id)
    if render is None:
        raise NotFound("There is no such render.")
    if render.draft_slot is not None and is_blind(session, col(GridCell.render_id) == render_id):
        raise Conflict("This image is shown once its blind test has ended.")
    return render


def is_blind(session: Session, cells: sa.ColumnElement[bool]) -> bool:
    """True if one of these cells of grids was made for a blind test that has not ended."""
    tests = (
        select(BlindTest.id)
        .join(Grid, col(Grid.blind_test_id) == col(BlindTest.id))
        .join(GridCell, col(GridCell.grid_id) == col(Grid.id))
        .where(cells, col(BlindTest.ended_at).is_(None))
    )
    return session.exec(tests.limit(1)).first() is not None


def render_images(session: Session, render_id: int) -> list[RenderImage]:
    """The images of a render, in order."""
    query = select(RenderImage).where(RenderImage.render_id == render_id)
    return list(session.exec(query.order_by(col(RenderImage.index))))


def cancel_render(session: Session, render_id: int) -> Render:
    """Cancel a render; idempotent."""
    render = get_render(session, render_id)
    jobs.request_cancel(session, Render, render)
    return render


def cancel_with_twin(session: Session, render_id: int) -> Render:
    """Cancel a render and its twin unless they have ended; idempotent."""
    render = get_render(session, render_id)
    shown = [render, get_render(session, render.twin_id)] if render.twin_id else [render]
    for row in shown:
        if not row.state.is_final:
            cancel_render(session, row.key)
    session.refresh(render)
    return render


def has_render_worker(session: Session) -> bool:
    """True if a render worker was seen recently."""
    return bool(present_workers(session, queue=Render.queue))


def _searched_text(render: Render) -> str:
    """The searched text of a render: its prompt, and its adapters by name and slug."""
    named = (used.get(field) or "" for used in render.adapters for field in ("name", "slug"))
    return searched_lines([render.prompt, *dict.fromkeys(named)])


@event.listens_for(Render, "before_insert")
@event.listens_for(Render, "before_update")
def _write_key(_mapper: Mapper[Any], _connection: Connection, render: Render) -> None:
    changed = sa.inspect(render).attrs
    if changed["prompt"].history.has_changes() or changed["adapters"].history.has_changes():
        render.search_text = _searched_text(render)
