"""Carries out a bulk edit as planned, as one step that can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.caption_writes import CaptionOrigin
from app.registry.datasets.edits.actions import OF_DATASET, Edit, EditAction
from app.registry.datasets.edits.copying import copy_images
from app.registry.datasets.edits.plan import Change, EditOutcome, EditPlan, LeftOut, plan_edit
from app.registry.datasets.edits.selection import Seen, Selection
from app.registry.datasets.edits.writing import CaptionWrite, write_captions, write_fields
from app.registry.datasets.service import change_dataset, get_dataset, lock_datasets
from app.registry.db import Database, in_chunks, utcnow
from app.registry.tables.datasets import CaptionSource, Dataset, DatasetEdit, Image, ImageCaption
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import aware

KEPT_EDITS = 50  # of a dataset, that can be undone
ONE_UPLOAD = timedelta(minutes=1)  # between two requests with files that were dropped together


def apply_edit(
    database: Database,
    dataset_id: int,
    edit: Edit,
    selection: Selection,
    *,
    seen: Seen | None = None,
) -> EditOutcome:
    """Change the selected images; the caption of every changed image stays in its history.

    `seen`: what the preview showed. Captions that were edited since, or that would be too long,
    are left out and named. Raises InvalidInput as `plan_edit` does.
    """
    with database.read() as session:  # a pattern takes its time: nobody waits for it to write
        plan = plan_edit(session, get_dataset(session, dataset_id), edit, selection, seen=seen)
    with database.write() as session:
        lock_datasets(session, {dataset_id, edit.dataset_id or 0})
        dataset = get_dataset(session, dataset_id)
        if edit.changes_captions:
            plan = _still_valid(session, plan)
        else:
            plan = plan_edit(session, dataset, edit, selection, seen=seen)
        return _carry_out(session, dataset, plan)


def _still_valid(session: Session, plan: EditPlan) -> EditPlan:
    """The plan without captions that were written since it was made; the others are locked."""
    current: dict[tuple[int, str], int] = {}
    for chunk in in_chunks({change.image.id for change in plan.changes}):
        first = select(Image.id, Image.caption_version).where(
            col(Image.id).in_(chunk), col(Image.deleted_at).is_(None)
        )
        locked = first.order_by(col(Image.id)).with_for_update()
        for image_id, version in session.exec(locked):
            current[image_id or 0, ""] = version
        others = select(ImageCaption).where(col(ImageCaption.image_id).in_(chunk))
        for row in session.exec(others.order_by(col(ImageCaption.id)).with_for_update()):
            current[row.image_id, row.kind] = row.version
    kept = [change for change in plan.changes if current.get(change.place) == change.version]
    late = [change for change in plan.changes if current.get(change.place) != change.version]
    reason = "It was edited or deleted meanwhile."
    left_out = plan.left_out + [LeftOut(change.image.filename, reason) for change in late]
    return replace(plan, changes=kept, left_out=left_out)


def _carry_out(session: Session, dataset: Dataset, plan: EditPlan) -> EditOutcome:
    if not plan.changes and not plan.edit.sets_trigger:
        return EditOutcome(plan.edit, None, 0, frozenset(), plan.left_out, plan.unchanged)
    step = DatasetEdit(
        dataset_id=dataset.key,
        action=plan.edit.action,
        settings=plan.edit.settings(),
        changed=plan.changed,
        before=[],
    )
    session.add(step)
    session.flush()
    rows = [_row(change) for change in plan.changes]
    if plan.edit.changes_captions:
        writes = [
            CaptionWrite(change.image.id, change.kind, change.after["caption"])
            for change in plan.changes
        ]
        write_captions(session, writes, CaptionSource.BULK, step.key)
        if plan.edit.sets_trigger:
            word = {"trigger_word": dataset.trigger_word or ""}
            rows.append({"image_id": OF_DATASET, "before": word})
            change_dataset(session, dataset.key, trigger_word=plan.edit.text)
    elif plan.edit.dataset_id is not None:
        origin = CaptionOrigin(CaptionSource.BULK, edit_id=step.key)
        ids = [change.image.id for change in plan.changes]
        copies = copy_images(session, plan.edit.dataset_id, ids, origin)
        for row in rows:
            copy = copies[row["image_id"]]
            row |= {"copy_id": copy.key, "copy_version": copy.caption_version}
    if plan.edit.action is not EditAction.COPY and not plan.edit.changes_captions:
        write_fields(session, [(change.image.id, change.after) for change in plan.changes])
    step.before = rows
    session.add(step)
    session.flush()
    _forget_old_steps(session, dataset)
    images = frozenset(change.image.id for change in plan.changes)
    return EditOutcome(plan.edit, step, step.changed, images, plan.left_out, plan.unchanged)


def record_read_captions(session: Session, dataset: Dataset, images: Sequence[Image]) -> None:
    """Record captions that files gave to these images, which had none, as a step to undo.

    A browser sends the files of a drop in many requests, which are one step.
    """
    if not images:
        return
    mine = select(DatasetEdit).where(col(DatasetEdit.dataset_id) == dataset.key)
    step = session.exec(mine.order_by(col(DatasetEdit.id).desc()).limit(1)).first()
    action = EditAction.READ_FILES
    is_open = step is not None and step.action == action and not step.undone_at
    if step is None or not is_open or utcnow() - aware(step.created_at) > ONE_UPLOAD:
        step = DatasetEdit(dataset_id=dataset.key, action=action, settings={}, changed=0, before=[])
    step.before = step.before + [
        {"image_id": one.key, "before": {"caption": ""}, "after": {"caption": one.caption}}
        for one in images
    ]
    step.changed, step.created_at = len(step.before), utcnow()
    session.add(step)
    session.flush()
    _forget_old_steps(session, dataset)


def _row(change: Change) -> dict[str, Any]:
    row = {"image_id": change.image.id, "before": change.before, "after": change.after}
    return row | {"kind": change.kind} if change.kind else row


def _forget_old_steps(session: Session, dataset: Dataset) -> None:
    """Empty what steps before the last ones would need to be undone; the steps stay."""
    mine = col(DatasetEdit.dataset_id) == dataset.key
    kept = select(DatasetEdit.id).where(mine).order_by(col(DatasetEdit.id).desc())
    oldest = session.exec(kept.offset(KEPT_EDITS - 1).limit(1)).first()
    if oldest is None:
        return
    old = mine & (col(DatasetEdit.id) < oldest) & (sa.cast(DatasetEdit.before, sa.Text) != "[]")
    emptied = sa.update(DatasetEdit).where(old).values(before=[])
    session.exec(emptied, execution_options=UNSYNCHRONIZED)
