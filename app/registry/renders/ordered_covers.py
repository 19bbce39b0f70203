"""Covers of adapters that have no image: an image is drawn of each, and kept as its cover."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.adapters.library.cards import belongs_to_version
from app.registry.errors import AppError
from app.registry.job_kinds.states import NOT_FINAL, JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders.covers import COVER_SLOT
from app.registry.renders.drafts import create_draft
from app.registry.renders.requests import RenderRequest
from app.registry.renders.tool_images import prompt_of
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.owned import editable
from app.registry.tables.renders import Render
from app.registry.tables.runs import Sample

PRIORITY = 50  # after what people wait for
AT_ONCE = 100
NEWEST = 1_000  # adapters that are looked at, so that the list of many stays quick


@dataclass(frozen=True)
class MissingCovers:
    """The adapters without an image, those with one on its way, and why the last one failed."""

    adapters: list[Adapter]
    waiting: int
    error: str


def missing_covers(session: Session) -> MissingCovers:
    """The adapters without cover or sample, at most AT_ONCE, of the NEWEST in the library.

    Only those that the person of this session may change.
    """
    drafts = select(Render).where(col(Render.draft_slot).startswith(COVER_SLOT.format(adapter="")))
    unfinished = session.exec(drafts.where(col(Render.status).in_(NOT_FINAL))).all()
    waiting = {used.adapter_id for draft in unfinished for used in draft.stack}
    sampled = select(Sample.id).join(AdapterVersion, belongs_to_version())
    is_sampled = sampled.where(AdapterVersion.adapter_id == Adapter.id, Sample.step > 0).exists()
    newest = select(Adapter.id).where(is_in_library()).order_by(col(Adapter.updated_at).desc())
    found = session.exec(
        select(Adapter)
        .where(col(Adapter.id).in_(newest.limit(NEWEST)), col(Adapter.id).not_in(waiting))
        .where(col(Adapter.cover_sha256).is_(None), *editable(session, Adapter), ~is_sampled)
        .limit(AT_ONCE)
    ).all()
    failed = drafts.where(Render.status == JobStatus.FAILED).order_by(col(Render.id).desc())
    last = session.exec(failed.limit(1)).first() if found else None
    return MissingCovers(list(found), len(waiting), (last and last.error) or "")


def order_covers(session: Session, store: BlobStore) -> tuple[int, list[str]]:
    """Queue an image of each adapter without one: how many, and why others are left out.

    Each becomes the cover once it is drawn, behind all other images that wait.
    """
    ordered, left_out = 0, []
    for adapter in missing_covers(session).adapters:
        request = RenderRequest(prompt="", adapters=[WeightedAdapter(adapter_id=adapter.key)])
        try:
            asked = request.model_copy(update=prompt_of(session, request))
            draft = create_draft(session, asked, store, slot=COVER_SLOT.format(adapter=adapter.key))
        except AppError as error:
            left_out.append(" ".join(error.fields.values()) or error.detail)
            continue
        draft.priority, ordered = PRIORITY, ordered + 1
    return ordered, left_out
