"""Every change of a bulk edit, computed before it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets.caption_words import contains_words
from app.registry.datasets.captions import CaptionRefused, clean_caption
from app.registry.datasets.edits.actions import (
    TO_DATASETS,
    Edit,
    EditAction,
    check_edit,
    describe_plan,
)
from app.registry.datasets.edits.find_replace import pattern_rule
from app.registry.datasets.edits.selection import (
    Seen,
    SelectedImage,
    Selection,
    images_by_id,
    selected_images,
)
from app.registry.datasets.service import get_dataset
from app.registry.db import in_chunks
from app.registry.errors import invalid_field
from app.registry.tables.datasets import Dataset, DatasetEdit, Image, ImageCaption, is_live
from app.registry.validation import one_line
from worker.core.captioning.file_names import captions_of_files
from worker.core.captioning.interface import CaptionAnswer
from worker.core.captioning.removing import remove_words, without_loose_commas

Rule = Callable[[str], str]


@dataclass(frozen=True)
class Change:
    """The change that an edit makes to one image, or to one of its captions.

    `kind` is "" for the first caption and for fields of the image.
    """

    image: SelectedImage
    before: dict[str, Any]
    after: dict[str, Any]
    kind: str = ""
    version: int = 0

    @property
    def place(self) -> tuple[int, str]:
        """The id of the changed image, and the kind."""
        return self.image.id, self.kind


@api_record
class LeftOut:
    """An image that an edit leaves as it is."""

    filename: str = Field(description="Name of the uploaded file.")
    reason: str = Field(description="Why, as a sentence.")


@dataclass
class EditPlan:
    """The changes of an edit. `unchanged` counts what stays as it is; `left_out` is named."""

    edit: Edit
    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    target_name: str = ""  # of the other dataset of a move or a copy

    @property
    def sentence(self) -> str:
        """A heading that says what the edit will do."""
        return describe_plan(self.edit, self.changed, target=self.target_name)

    @property
    def seen(self) -> Seen:
        """The rows that this plan read, for `plan_edit` when it is carried out."""
        return Seen({change.place: change.version for change in self.changes})

    @property
    def changed(self) -> int:
        """Number of captions, or of images."""
        return len(self.changes)


@dataclass(frozen=True)
class EditOutcome:
    """The result of a bulk edit or its undo: number of changed captions or images, and the images.

    `step` is the row of the edit; None if nothing changed.
    """

    edit: Edit
    step: DatasetEdit | None
    changed: int
    changed_images: frozenset[int]
    left_out: list[LeftOut] = field(default_factory=list)
    unchanged: int = 0


def plan_edit(
    session: Session,
    dataset: Dataset,
    edit: Edit,
    selection: Selection,
    *,
    seen: Seen | None = None,
) -> EditPlan:
    """The changes that an edit makes to the selected images; nothing is written.

    `seen`: what an earlier plan read; its images are changed then, whatever `selection` says,
    and captions that were edited since are left out. Raises InvalidInput if there is no image or
    the edit cannot be carried out.
    """
    edit = check_edit(edit)
    if edit.sets_trigger and one_line(edit.text) == dataset.trigger_word:
        edit = replace(edit, sets_trigger=False)
    plan = EditPlan(edit)
    if seen is None:
        images = selected_images(session, dataset, selection)
        missing = selection.image_ids - {image.id for image in images}
        if not selection.all_matching:
            plan.left_out += _missing(session, dataset.key, missing)
    else:
        images = images_by_id(session, dataset.key, seen.image_ids)
        plan.left_out += _missing(
            session, dataset.key, seen.image_ids - {image.id for image in images}
        )
    if plan.edit.changes_captions:
        _plan_captions(session, plan, images, seen)
    elif plan.edit.action in TO_DATASETS:
        _plan_copies(session, plan, images, dataset)
    else:
        _plan_fields(plan, images)
    return plan


def _missing(session: Session, dataset_id: int, image_ids: frozenset[int]) -> list[LeftOut]:
    """The selected images that this dataset does not have, or no longer."""
    names: dict[int | None, str] = {}
    for chunk in in_chunks(image_ids):
        query = select(Image.id, Image.filename).where(
            col(Image.id).in_(chunk), Image.dataset_id == dataset_id
        )
        names |= dict(session.exec(query).all())
    found = [LeftOut(name, "It was deleted meanwhile.") for name in names.values()]
    unknown = sorted(image_ids - names.keys())
    return found + [LeftOut(f"Image {key}", "Not in this dataset.") for key in unknown]


@dataclass(frozen=True)
class _Text:
    kind: str  # "": the first caption
    own_kind: str
    caption: str
    version: int


def _plan_captions(
    session: Session, plan: EditPlan, images: Sequence[SelectedImage], seen: Seen | None
) -> None:
    rule = rule_of(plan.edit)
    others = _other_captions(session, images)
    texts = {image.id: list(_texts(plan.edit, image, others.get(image.id, ()))) for image in images}
    from_names: dict[int, Rule] = {}
    if plan.edit.action is EditAction.FILE_NAMES:
        empty = {key for key, of_image in texts.items() if any(not t.caption for t in of_image)}
        from_names = _file_name_rules(session, empty if seen is None else seen.image_ids)
    for image in images:
        for text in texts[image.id]:
            version = text.version if seen is None else seen.versions.get((image.id, text.kind))
            if version is None:
                continue
            if version != text.version:
                reason = f"It was edited meanwhile, to “{text.caption}”."
                plan.left_out.append(LeftOut(image.filename, reason))
                continue
            _plan_caption(plan, image, text, from_names.get(image.id, rule))


def _file_name_rules(session: Session, image_ids: Iterable[int]) -> dict[int, Rule]:
    """A rule for each of these images, which fills an empty caption from its file name.

    Names of images that were deleted meanwhile count, so that a preview stays true.
    """
    names: dict[int, str] = {}
    for chunk in in_chunks(image_ids):
        query = select(Image.id, Image.filename).where(col(Image.id).in_(chunk))
        names |= {key or 0: name for key, name in session.exec(query)}
    answers = captions_of_files(list(names.values()))
    return {key: partial(_fill, answer) for key, answer in zip(names, answers, strict=True)}


def _fill(answer: CaptionAnswer, caption: str) -> str:
    if not caption and answer.note:
        raise CaptionRefused(answer.note)
    return caption or answer.text


def _plan_caption(plan: EditPlan, image: SelectedImage, text: _Text, rule: Any) -> None:
    try:
        after = rule(text.caption)
    except CaptionRefused as refused:
        plan.left_out.append(LeftOut(image.filename, str(refused)))
        return
    if after == text.caption:
        plan.unchanged += 1
        return
    before = {"caption": text.caption}
    plan.changes.append(Change(image, before, {"caption": after}, text.kind, text.version))


def _other_captions(
    session: Session, images: Sequence[SelectedImage]
) -> dict[int, list[ImageCaption]]:
    found: dict[int, list[ImageCaption]] = {}
    for chunk in in_chunks(image.id for image in images):
        query = select(ImageCaption).where(col(ImageCaption.image_id).in_(chunk))
        for caption in session.exec(query.order_by(col(ImageCaption.id))):
            found.setdefault(caption.image_id, []).append(caption)
    return found


def _texts(edit: Edit, image: SelectedImage, others: Sequence[ImageCaption]) -> Iterator[_Text]:
    """The captions of an image that an edit is for."""
    texts = [_Text("", image.caption_kind, image.caption, image.caption_version)]
    texts += [_Text(row.kind, row.kind, row.caption, row.version) for row in others]
    if edit.kind is not None:
        texts = [text for text in texts if text.own_kind == edit.kind]
    elif edit.action in (EditAction.WRITE, EditAction.FILE_NAMES):
        texts = texts[:1]
    yield from texts


def _plan_fields(plan: EditPlan, images: Sequence[SelectedImage]) -> None:
    edit = plan.edit
    name, value = {
        EditAction.REPEATS: ("repeats", edit.repeats),
        EditAction.NEVER_FLIP: ("never_flip", edit.value),
        EditAction.SET_ASIDE: ("set_aside", edit.value),
        EditAction.DELETE: ("deleted", True),
    }[edit.action]
    for image in images:
        before = getattr(image, name, False)
        if before == value:
            plan.unchanged += 1
        else:
            plan.changes.append(Change(image, {name: before}, {name: value}))


def _plan_copies(
    session: Session, plan: EditPlan, images: Sequence[SelectedImage], dataset: Dataset
) -> None:
    assert plan.edit.dataset_id is not None
    if plan.edit.dataset_id == dataset.key:
        raise invalid_field("dataset_id", "Choose another dataset than this one.")
    target = get_dataset(session, plan.edit.dataset_id)
    plan.target_name = target.name
    has = set(session.exec(select(Image.sha256).where(is_live(target.key))))
    after = {"deleted": True} if plan.edit.action is EditAction.MOVE else {}
    before = {"deleted": False} if after else {}
    for image in images:
        if image.sha256 in has:
            reason = f"It is already in “{target.name}”."
            plan.left_out.append(LeftOut(image.filename, reason))
        else:
            plan.changes.append(Change(image, before, after))


def rule_of(edit: Edit) -> Rule:
    """The function that gives the new text of a caption.

    It raises CaptionRefused if that is too long, and InvalidInput at the end of its CPU time.
    """
    text = clean_caption(edit.text)
    rules: dict[EditAction, Rule] = {
        EditAction.ADD_TRIGGER: partial(_add_word, word=text, at_end=edit.at_end),
        EditAction.PREPEND: partial(_join, text=text, at_end=False, with_space=edit.with_space),
        EditAction.APPEND: partial(_join, text=text, at_end=True, with_space=edit.with_space),
        EditAction.REMOVE_TAG: partial(_remove_tag, tag=text),
        EditAction.REMOVE_WORDS: partial(remove_words, phrases=text.split(",")),
        EditAction.WRITE: lambda _: text,
        EditAction.FILE_NAMES: lambda caption: caption,  # each image has its own
    }
    rule = rules.get(edit.action) or _tidied(pattern_rule(edit), edit.replacement)
    return lambda caption: clean_caption(rule(caption))


def _tidied(replace: Rule, replacement: str) -> Rule:
    """The rule, without commas that it leaves loose; those of the replacement stay."""
    if "," in replacement:
        return replace

    def tidied(caption: str) -> str:
        text = replace(caption)
        is_loose = _loose_commas(text) > _loose_commas(caption)
        return without_loose_commas(text) if is_loose else text

    return tidied


def _loose_commas(text: str) -> int:
    return sum(not part.strip() for part in text.split(","))


def _add_word(caption: str, *, word: str, at_end: bool) -> str:
    return caption if contains_words(caption, word) else _join(caption, text=word, at_end=at_end)


def _join(caption: str, *, text: str, at_end: bool, with_space: bool = False) -> str:
    between = " " if with_space else ", "
    parts = [caption.rstrip(" ,") if between == ", " else caption, text]
    if not at_end:
        parts = [text.rstrip(" ,") if between == ", " else text, caption]
    return between.join(part for part in parts if part)


def _remove_tag(caption: str, *, tag: str) -> str:
    unwanted = tag.strip(" ,").casefold()
    tags = caption.split(",")
    kept = [part for part in tags if part.strip().casefold() != unwanted]
    return ",".join(kept) if len(kept) < len(tags) else caption
