"""The steps that bulk edits made: the last ones as a list, and their undo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets.edits.actions import (
    OF_DATASET,
    TO_DATASETS,
    Edit,
    EditAction,
    describe_edit,
)
from app.registry.datasets.edits.plan import EditOutcome, LeftOut
from app.registry.datasets.edits.writing import CaptionWrite, write_captions, write_fields
from app.registry.datasets.image_captions.changes import remove_further
from app.registry.datasets.service import change_dataset, get_dataset
from app.registry.db import in_chunks, utcnow
from app.registry.errors import Conflict, NotFound
from app.registry.tables.datasets import CaptionSource, Dataset, DatasetEdit, Image, ImageCaption
from app.registry.validation import one_line
from app.registry.wording import ago, aware

LISTED = 5
"""Steps that the page of a dataset offers to undo."""
RECENT = timedelta(hours=1)
CURRENT = ("id", "filename", "caption", "caption_version", "repeats", "never_flip", "set_aside")
NOTHING_UNDONE = "Nothing was undone. This step can still be undone once later changes are"


@api_record
class Step:
    """A bulk edit that was made."""

    id: int = Field(description="Id of the step.")
    action: EditAction = Field(description="What was done.")
    sentence: str = Field(description="The same as a sentence.")
    settings: dict[str, Any] = Field(description="Its settings that are not the default.")
    changed: int = Field(description="Number of changed captions, or images.")
    created_at: datetime = Field(description="When it was made.")
    undone_at: datetime | None = Field(description="When it was undone.")
    can_undo: bool = Field(description="True if it can be undone.")

    @property
    def is_recent(self) -> bool:
        """True if it was just made: its undo is shown before the images in a narrow window."""
        return utcnow() - aware(self.created_at) < RECENT


def list_steps(
    session: Session,
    dataset_id: int,
    *,
    limit: int | None = LISTED,
    to_undo: bool = False,
    only: int | None = None,
) -> list[Step]:
    """The last steps of a dataset, newest first; `to_undo`: only those that can be undone.

    `only`: the step with this id, if there is one.
    """
    # the rows of a step can be megabytes: whether there are any is enough
    has_rows = sa.cast(DatasetEdit.before, sa.Text) != "[]"
    can_undo = has_rows & col(DatasetEdit.undone_at).is_(None)
    columns: list[Any] = [
        *(DatasetEdit.id, DatasetEdit.action, DatasetEdit.settings, DatasetEdit.changed),
        *(DatasetEdit.created_at, DatasetEdit.undone_at, can_undo.label("can_undo")),
    ]
    query = select(*columns).where(DatasetEdit.dataset_id == dataset_id)
    if to_undo:
        query = query.where(can_undo)
    if only is not None:
        query = query.where(col(DatasetEdit.id) == only)
    rows = session.exec(query.order_by(col(DatasetEdit.id).desc()).limit(limit))
    return [
        Step(**row._mapping, sentence=_describe(session, row.action, row.settings, row.changed))
        for row in rows.all()
    ]


def step_to_undo(session: Session, dataset_id: int, edit_id: int) -> Step | None:
    """This step of the dataset, if it can be undone."""
    return next(iter(list_steps(session, dataset_id, to_undo=True, only=edit_id)), None)


def describe_step(session: Session, step: DatasetEdit) -> str:
    """The result of a step as a sentence without a period."""
    return _describe(session, step.action, step.settings, step.changed)


def _describe(session: Session, action: str, settings: dict[str, Any], changed: int) -> str:
    edit = _edit_of(action, settings)
    return describe_edit(edit, changed, target=_target_name(session, edit))


def _edit_of(action: str, settings: dict[str, Any]) -> Edit:
    return replace(Edit(EditAction(action)), **settings)


def _target_name(session: Session, edit: Edit) -> str:
    if edit.action not in TO_DATASETS:
        return ""
    dataset = session.get(Dataset, edit.dataset_id)
    return dataset.name if dataset else "a dataset that was deleted"


def undo_edit(session: Session, dataset_id: int, edit_id: int) -> EditOutcome:
    """Restore what a step changed, where it still is as the step left it.

    What was changed or deleted since stays and is named. Where that is everything, the step can
    still be undone, as after an undo of the steps after it. Raises Conflict if the step was undone
    already, or is too old.
    """
    dataset = get_dataset(session, dataset_id, lock=True)
    step = session.get(DatasetEdit, edit_id, with_for_update=True)
    if step is None or step.dataset_id != dataset_id:
        raise NotFound("This dataset has no such step.")
    if step.undone_at is not None:
        raise Conflict(f"This was undone already, {ago(step.undone_at)}.")
    if not step.before:
        raise Conflict("This step is too old to be undone; each caption has its own history.")
    edit = _edit_of(step.action, step.settings)
    if edit.changes_captions:
        edit = replace(edit, sets_trigger=_undo_trigger(session, dataset, step, edit))
        outcome = _undo_captions(session, step, edit)
    else:
        outcome = _undo_fields(session, step, edit)
    if outcome.changed or outcome.edit.sets_trigger:
        step.undone_at = utcnow()
        session.add(step)
        session.flush()
    return outcome


def _undo_trigger(session: Session, dataset: Dataset, step: DatasetEdit, edit: Edit) -> bool:
    """Restore the trigger word of the dataset if it is that of the step; True if it was."""
    before = [row["before"] for row in step.before if row["image_id"] == OF_DATASET]
    if not before or dataset.trigger_word != one_line(edit.text):
        return False
    change_dataset(session, dataset.key, **before[0])
    return True


def _current(session: Session, image_ids: Iterable[int]) -> dict[int, sa.Row[Any]]:
    """What these images have now, by id; nobody else changes them until the session ends."""
    columns: list[Any] = [getattr(Image, name) for name in CURRENT]
    columns.append(col(Image.deleted_at).is_not(None).label("deleted"))
    found: dict[int, sa.Row[Any]] = {}
    for chunk in in_chunks(image_ids):
        query = select(*columns).where(col(Image.id).in_(chunk))
        rows = session.exec(query.order_by(col(Image.id)).with_for_update())
        found |= {row.id: row for row in rows}
    return found


def _undo_captions(session: Session, step: DatasetEdit, edit: Edit) -> EditOutcome:
    images = _current(session, {row["image_id"] for row in step.before})
    others: dict[tuple[int, str], str] = {}
    for chunk in in_chunks({row["image_id"] for row in step.before if row.get("kind")}):
        query = select(ImageCaption).where(col(ImageCaption.image_id).in_(chunk))
        others |= {(row.image_id, row.kind): row.caption for row in session.exec(query)}
    writes, left_out = [], []
    added: set[tuple[int, str]] = set()
    for row in step.before:
        image_id, kind = row["image_id"], row.get("kind", "")
        image = images.get(image_id)
        if image is None:
            continue
        caption = others.get((image_id, kind)) if kind else image.caption
        if image.deleted:
            left_out.append(LeftOut(image.filename, "It was deleted since."))
        elif caption != row["after"]["caption"]:
            left_out.append(LeftOut(image.filename, "Its caption was changed since."))
        elif row.get("added"):
            added.add((image_id, kind))
        else:
            writes.append(CaptionWrite(image_id, kind, row["before"]["caption"]))
    write_captions(session, writes, CaptionSource.UNDO, step.key)
    remove_further(session, added)
    changed = frozenset([*(write.image_id for write in writes), *(key for key, _ in added)])
    return EditOutcome(edit, step, len(writes) + len(added), changed, left_out)


def _undo_fields(session: Session, step: DatasetEdit, edit: Edit) -> EditOutcome:
    copies = [row["copy_id"] for row in step.before if "copy_id" in row]
    images = _current(session, {*copies, *(row["image_id"] for row in step.before)})
    values, left_out, changed = [], [], set()
    for row in step.before:
        image = images.get(row["image_id"])
        if image is None:
            continue
        copy_id = row.get("copy_id", 0)
        copy = images.get(copy_id)
        edited = copy is not None and copy.caption_version != row["copy_version"]
        reason = "Its copy was edited since." if edited else _why_not(image, row)
        if reason:
            left_out.append(LeftOut(image.filename, reason))
            continue
        if copy is not None:
            values.append((copy_id, {"deleted": True}))
        values.append((row["image_id"], row["before"]))
        changed.add(row["image_id"])
    write_fields(session, values)
    return EditOutcome(edit, step, len(changed), frozenset(changed), left_out)


def _why_not(image: sa.Row[Any], row: dict[str, Any]) -> str:
    """Why a row of a step cannot be undone; "" if it can."""
    if image.deleted and "deleted" not in row["after"]:
        return "It was deleted since."
    if any(getattr(image, name) != value for name, value in row["after"].items()):
        return "It was restored since." if "deleted" in row["after"] else "It was changed since."
    return ""
