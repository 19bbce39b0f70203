"""Drafts: renders that a newer one replaces, deleted an hour after their end unless they are kept.

The live redraws of the playground are drafts. Each browser tab is a slot of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.job_kinds.states import NOT_FINAL, JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.rights import require_edit
from app.registry.renders import service
from app.registry.renders.covers import take_cover
from app.registry.renders.plan import RenderPlan, plan_render
from app.registry.renders.requests import RenderRequest
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import BaseModel
from app.registry.tables.owned import source_of
from app.registry.tables.renders import Render
from app.registry.tables.rows import UNSYNCHRONIZED

RECENT = 5  # renders that an estimate is made from


def create_draft(
    session: Session, request: RenderRequest, store: BlobStore, *, slot: str
) -> Render:
    """Queue a render, and its twin if that is requested, as a draft of this slot.

    Unfinished drafts of the slot are canceled, and the new one takes over their place in the queue,
    so that a slider that keeps moving does not go behind everyone else. Raises as `create_render`,
    and then cancels nothing.
    """
    return store_draft(session, plan_render(session, request), store, slot=slot)


def store_draft(session: Session, plan: RenderPlan, store: BlobStore, *, slot: str) -> Render:
    """`create_draft` for a request that was planned before, while others could write."""
    places = _cancel_unfinished(session, slot, plan.render.owner_id)  # first: they take places
    render = service.store_plan(session, plan, store)
    drafts = [render]
    if render.twin_id is not None:
        drafts.append(service.get_render(session, render.twin_id))
    for number, draft in enumerate(drafts):
        draft.draft_slot = slot
        if places and draft.state is JobStatus.QUEUED:
            draft.created_at = min(places) + timedelta(microseconds=number)
        session.add(draft)
    session.flush()
    take_cover(session, render)
    return render


def _cancel_unfinished(session: Session, slot: str, owner_id: int) -> list[datetime]:
    """Cancel the drafts of a slot that have not ended; when each queued one was created."""
    mine = (Render.draft_slot == slot, Render.owner_id == owner_id)
    unfinished = select(Render).where(*mine, col(Render.status).in_(NOT_FINAL))
    drafts = session.exec(unfinished).all()
    places = [draft.created_at for draft in drafts if draft.state is JobStatus.QUEUED]
    jobs.cancel_all(session, Render, drafts)
    return places


def is_replaced(session: Session, render: Render) -> bool:
    """True for a canceled draft that a newer one of its slot has replaced."""
    if render.draft_slot is None or render.state is not JobStatus.CANCELED:
        return False
    newer = select(Render.id).where(
        Render.draft_slot == render.draft_slot,
        Render.owner_id == render.owner_id,
        col(Render.id) > render.key,
    )
    return session.exec(newer.limit(1)).first() is not None


def keep_draft(session: Session, render_id: int) -> Render:
    """Make a draft and its twin ordinary renders, listed and kept; idempotent.

    Raises Forbidden for a draft of somebody else that the person may not change.
    """
    render = service.get_render(session, render_id)
    if render.draft_slot is not None:
        require_edit(session, render)
    kept = [render.key] if render.twin_id is None else [render.key, render.twin_id]
    change = sa.update(Render).where(col(Render.id).in_(kept)).values(draft_slot=None)
    session.exec(change, execution_options=UNSYNCHRONIZED)
    session.refresh(render)
    return render


def expected_seconds(
    session: Session, base: BaseModel, *, steps: int, width: int, height: int
) -> float | None:
    """About how long an image of this base model takes; None while nothing is known of it.

    From the quickest of its newest renders, by denoising steps and pixels: the others may have
    loaded the base model, or shared the machine.
    """
    query = (
        select(Render)
        .where(
            Render.base_model_id == base.key,
            Render.status == JobStatus.SUCCEEDED,
            col(Render.from_cache).is_(False),
            col(Render.seconds) > 0,
        )
        .order_by(col(Render.id).desc())
        .limit(RECENT)
    )
    each = [
        row.seconds / (row.all_steps * row.width * row.height)
        for row in session.exec(query)
        if row.seconds and row.all_steps
    ]
    return min(each) * steps * width * height if each else None


def seconds_of(session: Session, rows: Collection[Render]) -> float | None:
    """About how long these images take; None while nothing is known of one of their bases."""
    total = 0.0
    for key in {row.base_model_id for row in rows}:
        base = source_of(session, BaseModel, key)
        each = expected_seconds(session, base, steps=1, width=1, height=1)
        if each is None:
            return None
        own = (row for row in rows if row.base_model_id == key)
        total += each * sum(row.all_steps * row.width * row.height for row in own)
    return total
