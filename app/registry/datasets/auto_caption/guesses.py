"""Guesses that a provider was too unsure to write: a person takes them, one or many."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.datasets.auto_caption.orders import OrderProgress
from app.registry.datasets.auto_caption.proposals import (
    Applied,
    ProposedChange,
    still_fits,
    with_captions,
    write_changes,
)
from app.registry.errors import invalid_field
from app.registry.tables.datasets import CaptionProposal, Image

NOTHING_NAMED = "Name the guesses by their ids, or the least confidence from 0 to 1."


def list_guesses(
    session: Session, order: OrderProgress, *, above: float = 0.0, limit: int | None = None
) -> list[ProposedChange]:
    """The guesses of an order that can be taken, with at least this confidence; surest first."""
    query = select(CaptionProposal, Image).join(Image).where(*_open(order, above))
    surest = query.order_by(col(CaptionProposal.confidence).desc(), col(Image.id))
    return with_captions(session, session.exec(surest.limit(limit)).all())


def count_guesses(session: Session, order: OrderProgress, *, above: float = 0.0) -> int:
    """Number of guesses of an order that can be taken, with at least this confidence."""
    query = select(func.count()).select_from(CaptionProposal).join(Image)
    return session.exec(query.where(*_open(order, above))).one()


def apply_guesses(
    session: Session,
    order: OrderProgress,
    proposal_ids: Sequence[int] | None = None,
    *,
    above: float | None = None,
) -> Applied:
    """Write these guesses, or those with at least this confidence, as one step to undo.

    Those whose caption was changed meanwhile are left out. Raises InvalidInput if neither is given.
    """
    if proposal_ids is None and above is None:
        raise invalid_field("proposal_ids", NOTHING_NAMED)
    query = select(CaptionProposal, Image).join(Image).where(*_open(order, above or 0.0))
    rows = session.exec(query.order_by(col(Image.id)).with_for_update()).all()
    if proposal_ids is not None:
        wanted = set(proposal_ids)
        rows = [row for row in rows if row[0].key in wanted]
    changes = with_captions(session, rows)
    for change in changes:
        change.proposal.caption = change.proposal.guess
    assert order.job.subject_id is not None
    return write_changes(session, order.job.subject_id, changes, {})


def _open(order: OrderProgress, above: float) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions: the caption is as the provider saw it; an empty one may have been undone."""
    return (
        col(CaptionProposal.job_id) == order.job.key,
        col(CaptionProposal.guess) != "",
        col(CaptionProposal.confidence) >= above,
        col(Image.deleted_at).is_(None),
        still_fits(),
    )
