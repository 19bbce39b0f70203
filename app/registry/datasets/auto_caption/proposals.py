"""Captions that were proposed: seen, applied or discarded by a person, as one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import Select

from app.registry.api_records import api_record
from app.registry.datasets import caption_writes
from app.registry.datasets.caption_writes import CaptionOrigin
from app.registry.datasets.captions import CaptionRefused, clean_caption
from app.registry.datasets.edits.actions import EditAction
from app.registry.datasets.image_captions.changes import write_further
from app.registry.datasets.several_captions import KindNow, captions_of_kinds
from app.registry.db import in_chunks
from app.registry.job_kinds.caption_kinds import PreviewCaptionResult
from app.registry.tables.datasets import (
    CaptionProposal,
    CaptionSource,
    DatasetEdit,
    Image,
    ImageCaption,
    ProposalState,
    is_live,
)
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import plural
from worker.core.captioning.words import CaptionMode

ENDS = (".", "!", "?", "…")
HAS_CAPTION = "It has a caption now, so it was left as it is."


@dataclass(frozen=True)
class ProposedChange:
    """A proposal with its image: the caption of its kind now, and the one that it would have."""

    proposal: CaptionProposal
    image: Image
    now: KindNow

    @property
    def before(self) -> str:
        """The caption now; "" if the image has none of this kind."""
        return self.now.caption

    @property
    def after(self) -> str:
        """The caption once the proposal is applied."""
        text = self.proposal.caption or self.proposal.guess
        return changed_caption(self.before, text, self.proposal.mode)

    @property
    def is_filled(self) -> bool:
        """True if only an empty caption was to be filled, and it is not empty any more."""
        return self.proposal.mode == CaptionMode.FILL and self.before != ""

    @property
    def is_outdated(self) -> bool:
        """True if the caption was changed after the proposal was made, so that it is not applied
        until somebody has seen the caption as it is now."""
        if self.proposal.mode == CaptionMode.FILL:
            return self.is_filled
        return self.now.version != self.proposal.seen_version

    @property
    def is_first(self) -> bool:
        """True if it is for the first caption of its image."""
        return self.proposal.kind == self.image.caption_kind


@api_record
class Applied:
    """The result of applying proposals."""

    changed: int = Field(default=0, description="Number of captions written.")
    changed_meanwhile: int = 0
    """Captions left, because they were changed since."""
    still_proposed: int = 0
    """Of these, proposals that wait to be applied with `seen`; the others were to fill empty
    captions and are dropped."""
    refused: int = Field(default=0, description="Captions left, because they would be too long.")
    edit_id: int | None = None
    """The step that can be undone; null: nothing changed."""
    image_ids: list[int] = Field(exclude=True, default_factory=list)

    @property
    def sentence(self) -> str:
        """The outcome as a sentence for people."""
        parts = [f"{plural(self.changed, 'caption')} written."]
        if self.changed_meanwhile:
            parts.append(
                f"{plural(self.changed_meanwhile, 'caption was', 'captions were')} changed "
                "meanwhile and left alone."
            )
        if self.still_proposed:
            parts.append(
                f"{plural(self.still_proposed, 'proposal')} kept: look at the captions as they are "
                "now before you apply again."
            )
        if self.refused:
            parts.append(f"{plural(self.refused, 'caption')} would be too long.")
        return " ".join(parts)


def changed_caption(before: str, proposed: str, mode: str) -> str:
    """The caption that a proposal makes of one."""
    if mode != CaptionMode.APPEND or not before:
        return proposed
    joint = " " if before.endswith(ENDS) else ", "
    return before.rstrip(" ,") + joint + proposed


def count_proposed(session: Session, dataset_id: int) -> int:
    """Number of proposals of a dataset that wait for a decision."""
    query = select(func.count()).select_from(CaptionProposal).join(Image)
    return session.exec(query.where(*_undecided(dataset_id))).one()


def list_proposed(
    session: Session, dataset_id: int, *, after: int = 0, limit: int | None = None
) -> list[ProposedChange]:
    """The proposals that wait for a decision, by image, from the image after the id `after` on.

    With a limit, at most so many, and the others of the last image: it may have one of each kind.
    """
    query = (
        select(CaptionProposal, Image)
        .join(Image)
        .where(*_undecided(dataset_id), col(Image.id) > after)
        .order_by(col(Image.id), col(CaptionProposal.id))
    )
    rows = list(session.exec(query.limit(limit)))
    if rows and len(rows) == limit:
        last = rows[-1][1].key
        rows = [row for row in rows if row[1].key != last]
        rows += session.exec(query.where(Image.id == last))
    return with_captions(session, rows)


def with_captions(
    session: Session, rows: Sequence[tuple[CaptionProposal, Image]]
) -> list[ProposedChange]:
    """The proposals with the captions of their images now."""
    wanted = [(image, proposal.kind) for proposal, image in rows]
    captions = captions_of_kinds(session, wanted)
    return [ProposedChange(*row, now) for row, now in zip(rows, captions, strict=True)]


def list_left_empty(session: Session, job_id: int, *, limit: int) -> list[ProposedChange]:
    """The images of an order without caption and guess, with the reason; failed ones first."""
    without = (ProposalState.FAILED, ProposalState.EMPTY)
    query = _of_order(job_id).where(
        col(CaptionProposal.state).in_(without), CaptionProposal.guess == ""
    )
    ordered = query.order_by(col(CaptionProposal.state).desc(), col(Image.id)).limit(limit)
    return with_captions(session, session.exec(ordered).all())


def list_written(session: Session, job_id: int, *, limit: int) -> list[ProposedChange]:
    """The images of an order whose captions were written, the last ones first."""
    query = _of_order(job_id).where(CaptionProposal.state == ProposalState.APPLIED)
    ordered = query.order_by(col(CaptionProposal.id).desc()).limit(limit)
    found = with_captions(session, session.exec(ordered).all())
    # not what was undone or replaced since
    return [change for change in found if change.proposal.caption in change.before]


def _of_order(job_id: int) -> Select[CaptionProposal, Image]:
    query = select(CaptionProposal, Image).join(Image)
    return query.where(CaptionProposal.job_id == job_id, col(Image.deleted_at).is_(None))


def _waiting(dataset_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        is_live(dataset_id),
        col(CaptionProposal.state) == ProposalState.PROPOSED,
    )


def _undecided(dataset_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Those that wait, without those that would fill a caption which is written by now."""
    caption, _ = _now()
    return *_waiting(dataset_id), (col(CaptionProposal.mode) != CaptionMode.FILL) | (caption == "")


def still_fits() -> sa.ColumnElement[bool]:
    """Condition: the caption is empty where it was to be filled, else as the provider saw it."""
    caption, version = _now()
    is_fill = col(CaptionProposal.mode) == CaptionMode.FILL
    return sa.case((is_fill, caption == ""), else_=version == CaptionProposal.seen_version)


def _now() -> tuple[sa.ColumnElement[str], sa.ColumnElement[int]]:
    """The caption that a proposal is for, and its version; "" and 0 if the image has none."""
    is_first = col(CaptionProposal.kind) == col(Image.caption_kind)
    of_kind = (col(ImageCaption.image_id) == col(Image.id)) & (
        col(ImageCaption.kind) == col(CaptionProposal.kind)
    )
    caption, version = (
        sa.select(column).where(of_kind).scalar_subquery()
        for column in (col(ImageCaption.caption), col(ImageCaption.version))
    )
    return (
        sa.case((is_first, col(Image.caption)), else_=func.coalesce(caption, "")),
        sa.case((is_first, col(Image.caption_version)), else_=func.coalesce(version, 0)),
    )


def apply_proposals(
    session: Session,
    dataset_id: int,
    proposal_ids: Iterable[int] | None = None,
    *,
    seen: Mapping[int, int] | None = None,
) -> Applied:
    """Write the captions of these proposals, or of all that wait, as one step that can be undone.

    A caption that was changed after the proposal was made is left as it is, however often this is
    called. `seen`: by id of a proposal, the version of the caption that somebody saw beside it; it
    is applied to this version, and to no other. Only what is empty now is filled.
    """
    changes = _lock_proposals(session, dataset_id, proposal_ids)
    return write_changes(session, dataset_id, changes, seen or {})


def write_changes(
    session: Session,
    dataset_id: int,
    changes: Iterable[ProposedChange],
    seen: Mapping[int, int],
) -> Applied:
    """Write these captions, whose rows are locked, as one step that can be undone."""
    found = _Writer(session, seen)
    for change in changes:
        found.take(change)
    if not found.written:
        return found.applied(None)
    edit = DatasetEdit(
        dataset_id=dataset_id,
        action=EditAction.AUTO_CAPTION,
        settings={"text": ", ".join(sorted({p.source_name for p in found.proposals}))},
        changed=len(found.written),
        before=[_row(change, caption) for change, caption in found.written],
    )
    session.add(edit)
    session.flush()
    further: dict[str, dict[tuple[int, str], str]] = defaultdict(dict)  # by who wrote them
    for change, caption in found.written:
        proposal, image = change.proposal, change.image
        if change.is_first:
            origin = CaptionOrigin(CaptionSource.PROVIDER, proposal.source_name, edit.key)
            caption_writes.write_caption(session, image, caption, origin)
        else:
            further[proposal.source_name][image.key, proposal.kind] = caption
        proposal.state = ProposalState.APPLIED
        session.add(proposal)
    for name, texts in further.items():
        write_further(session, texts, CaptionOrigin(CaptionSource.PROVIDER, name, edit.key))
    session.flush()
    return found.applied(edit.key)


def _row(change: ProposedChange, caption: str) -> dict[str, Any]:
    """The data for the undo of the change; `added`: the image had no caption of this kind."""
    row: dict[str, Any] = {
        "image_id": change.image.key,
        "before": {"caption": change.before},
        "after": {"caption": caption},
    }
    if change.is_first:
        return row
    return row | {"kind": change.proposal.kind, "added": not change.now.version}


class _Writer:
    """Sorts proposals into those that can be written, and the reasons of the others."""

    def __init__(self, session: Session, seen: Mapping[int, int]) -> None:
        self._session = session
        self._seen = seen
        self.written: list[tuple[ProposedChange, str]] = []
        self._kept = self._dropped = self._refused = 0

    @property
    def proposals(self) -> list[CaptionProposal]:
        """Those that can be written."""
        return [change.proposal for change, _ in self.written]

    def take(self, change: ProposedChange) -> None:
        proposal = change.proposal
        if change.is_filled:
            proposal.state, proposal.note = ProposalState.SKIPPED, HAS_CAPTION
            self._session.add(proposal)
            self._dropped += 1
            return
        seen = self._seen.get(proposal.key, proposal.seen_version)
        if proposal.mode != CaptionMode.FILL and change.now.version != seen:
            self._kept += 1
            return
        try:
            caption = clean_caption(change.after)
        except CaptionRefused:
            self._refused += 1
            return
        if caption == change.before:
            proposal.state = ProposalState.APPLIED
            self._session.add(proposal)
            return
        self.written.append((change, caption))

    def applied(self, edit_id: int | None) -> Applied:
        return Applied(
            changed=len(self.written),
            changed_meanwhile=self._kept + self._dropped,
            still_proposed=self._kept,
            refused=self._refused,
            edit_id=edit_id,
            image_ids=[change.image.key for change, _ in self.written],
        )


def discard_proposals(
    session: Session, dataset_id: int, proposal_ids: Iterable[int] | None = None
) -> int:
    """Discard these proposals, or all that wait; the number of them."""
    changes = _lock_proposals(session, dataset_id, proposal_ids)
    for change in changes:
        change.proposal.state = ProposalState.DISCARDED
        session.add(change.proposal)
    session.flush()
    return len(changes)


def _lock_proposals(
    session: Session, dataset_id: int, proposal_ids: Iterable[int] | None
) -> Sequence[ProposedChange]:
    """The proposals with their images, which nobody else can change until this transaction ends."""
    query = select(CaptionProposal, Image).join(Image).where(*_waiting(dataset_id))
    query = query.order_by(col(Image.id)).with_for_update()
    if proposal_ids is None:
        return with_captions(session, session.exec(query).all())
    rows = [
        row
        for chunk in in_chunks(set(proposal_ids))
        for row in session.exec(query.where(col(CaptionProposal.id).in_(chunk)))
    ]
    return with_captions(session, rows)


def answered(proposal: CaptionProposal, answer: PreviewCaptionResult) -> CaptionProposal:
    """The proposal with the answer of a provider."""
    proposal.caption, proposal.note = answer.caption, answer.note
    proposal.removed = ", ".join(answer.removed)
    proposal.guess, proposal.confidence = answer.guess, answer.confidence
    if not answer.caption:
        proposal.state = ProposalState.EMPTY
    return proposal


def store_proposals(session: Session, proposals: Sequence[CaptionProposal]) -> None:
    """Store what a provider said of images; each takes the place of an older, waiting proposal."""
    new = [row for row in proposals if row.state == ProposalState.PROPOSED]
    for kind in {row.kind for row in new}:
        for chunk in in_chunks(row.image_id for row in new if row.kind == kind):
            older = sa.update(CaptionProposal).where(
                col(CaptionProposal.image_id).in_(chunk),
                col(CaptionProposal.kind) == kind,
                col(CaptionProposal.state) == ProposalState.PROPOSED,
            )
            discarded = older.values(state=ProposalState.DISCARDED)
            session.exec(discarded, execution_options=UNSYNCHRONIZED)
    session.add_all(proposals)
    session.flush()
