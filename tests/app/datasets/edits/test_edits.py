"""Bulk edits of the registry: planned, carried out, undone; on SQLite and on PostgreSQL."""

from __future__ import annotations

from threading import Thread

import pytest
from sqlmodel import select

from app.registry.datasets import service
from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.applying import KEPT_EDITS, apply_edit
from app.registry.datasets.edits.plan import EditOutcome, EditPlan, LeftOut, plan_edit
from app.registry.datasets.edits.selection import Seen, Selection, read_ids, read_seen
from app.registry.datasets.edits.steps import list_steps, undo_edit
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    change_caption,
    change_first_kind,
    remove_caption,
)
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.several_captions import captions_of_image
from app.registry.db import Database
from app.registry.deletion.lists import restore
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.tables.datasets import CaptionRevision, DatasetEdit, Image, ImageCaption
from tests.row_locks import start_and_wait
from worker.core.captioning.file_names import CODE, SHARED
from worker.core.words import CaptionKind

ALL = Selection(all_matching=True)
ADD_INK = Edit(EditAction.ADD_TRIGGER, "ink")


class Set:
    """A dataset with these captions."""

    def __init__(self, database: Database, *captions: str, name: str = "Ink") -> None:
        self.database = database
        with database.write() as session:
            self.key = service.create_dataset(session, name, trigger_word="ink").key
            new = [
                NewImage(f"{n}.png", f"{n:064x}", "c" * 64, "e" * 64, 8, 8, 1, caption)
                for n, caption in enumerate(captions)
            ]
            self.ids = [row.image.key for row in service.add_images(session, self.key, new)]

    def images(self) -> list[Image]:
        with self.database.read() as session:
            return service.list_images(session, self.key)

    def captions(self) -> list[str]:
        return [image.caption for image in self.images()]

    def plan(self, edit: Edit, selection: Selection = ALL, seen: Seen | None = None) -> EditPlan:
        with self.database.read() as session:
            dataset = service.get_dataset(session, self.key)
            return plan_edit(session, dataset, edit, selection, seen=seen)

    def apply(
        self, edit: Edit, selection: Selection = ALL, seen: Seen | None = None
    ) -> EditOutcome:
        return apply_edit(self.database, self.key, edit, selection, seen=seen)

    def undo(self, outcome: EditOutcome) -> EditOutcome:
        assert outcome.step is not None
        with self.database.write() as session:
            return undo_edit(session, self.key, outcome.step.key)

    def write(self, number: int, caption: str) -> None:
        with self.database.write() as session:
            service.caption_image(session, self.ids[number], caption)

    def delete(self, number: int) -> None:
        with self.database.write() as session:
            service.delete_image(session, self.ids[number])

    def chosen(self, *numbers: int) -> Selection:
        return Selection(frozenset(self.ids[number] for number in numbers))


def test_a_trigger_word_reaches_all_captions_in_one_step_that_is_undone_once(
    database: Database,
) -> None:
    ink = Set(database, "a fox", "", "an owl, ink")
    plan = ink.plan(ADD_INK)
    assert (plan.changed, plan.unchanged) == (2, 1)
    outcome = ink.apply(ADD_INK)
    assert ink.captions() == ["ink, a fox", "ink", "an owl, ink"]
    assert outcome.changed_images == frozenset(ink.ids[:2])
    with database.read() as session:
        (step,) = list_steps(session, ink.key, to_undo=True)
    assert step.sentence == "Added “ink” to 2 captions"
    assert ink.undo(outcome).changed == 2
    assert ink.captions() == ["a fox", "", "an owl, ink"]
    with pytest.raises(Conflict, match="undone already, just now"):
        ink.undo(outcome)
    with database.read() as session:
        assert list_steps(session, ink.key, to_undo=True) == []
        history = session.exec(
            select(CaptionRevision.version, CaptionRevision.source, CaptionRevision.edit_id)
            .where(CaptionRevision.image_id == ink.ids[0])
            .order_by(CaptionRevision.version)  # type: ignore[arg-type]
        ).all()
    assert history == [(1, "import", None), (2, "bulk", step.id), (3, "undo", step.id)]


def test_only_the_selected_images_of_the_dataset_change(database: Database) -> None:
    ink, other = Set(database, "a", "b", "c"), Set(database, "x", name="Other")
    foreign = Selection(ink.chosen(0).image_ids | {other.ids[0]})
    outcome = ink.apply(ADD_INK, foreign)
    assert (ink.captions(), other.captions()) == (["ink, a", "b", "c"], ["x"])
    assert outcome.left_out == [LeftOut(f"Image {other.ids[0]}", "Not in this dataset.")]
    matching = Selection(frozenset({ink.ids[1]}), all_matching=True)
    ink.apply(Edit(EditAction.WRITE, "new"), matching)
    assert ink.captions() == ["new", "b", "new"]
    for empty, words in (
        (Selection(), "Select at least one"),
        (other.chosen(0), "None of the selected images is in this dataset"),
        (Selection(all_matching=True, wanted=ImageFilter(q="zzz")), "No image matches the filter"),
    ):
        with pytest.raises(InvalidInput, match=words):
            ink.apply(ADD_INK, empty)


def test_a_caption_that_was_edited_after_the_preview_stays_and_is_named(
    database: Database,
) -> None:
    ink = Set(database, "a", "b", "c")
    seen = read_seen(ink.plan(ADD_INK).seen.token())
    ink.write(0, "mine")
    ink.delete(1)
    outcome = ink.apply(ADD_INK, seen=seen)
    assert ink.captions() == ["mine", "ink, c"]
    assert sorted(row.reason for row in outcome.left_out) == [
        "It was deleted meanwhile.",
        "It was edited meanwhile, to “mine”.",
    ]


def test_captions_that_would_be_too_long_are_named_and_left_out(database: Database) -> None:
    ink = Set(database, "a", "b" * 1_999)
    outcome = ink.apply(Edit(EditAction.APPEND, "longer"))
    assert ink.captions() == ["a, longer", "b" * 1_999]
    assert [row.filename for row in outcome.left_out] == ["1.png"]
    assert "at most 2,000" in outcome.left_out[0].reason
    nothing = ink.apply(Edit(EditAction.REMOVE_TAG, "zzz"))
    assert (nothing.step, nothing.changed, nothing.unchanged) == (None, 0, 2)


def test_undo_restores_only_what_nobody_changed_since(database: Database) -> None:
    ink = Set(database, "a", "b", "c")
    outcome = ink.apply(ADD_INK)
    ink.write(0, "mine")
    ink.delete(1)
    undone = ink.undo(outcome)
    assert ink.captions() == ["mine", "c"]
    assert (undone.changed, undone.left_out) == (
        1,
        [
            LeftOut("0.png", "Its caption was changed since."),
            LeftOut("1.png", "It was deleted since."),
        ],
    )
    with pytest.raises(NotFound), database.write() as session:
        undo_edit(session, ink.key, 999)


def test_an_undo_that_changes_nothing_can_be_made_again(database: Database) -> None:
    ink = Set(database, "a", "b")
    first, second = ink.apply(ADD_INK), ink.apply(Edit(EditAction.APPEND, "x"))
    flips = [ink.apply(Edit(EditAction.REPEATS, repeats=number)) for number in (2, 3)]
    for _ in range(2):
        undone = ink.undo(first)
        assert (undone.changed, ink.captions()) == (0, ["ink, a, x", "ink, b, x"])
        assert {row.reason for row in undone.left_out} == {"Its caption was changed since."}
        assert ink.undo(flips[0]).changed == 0
    with database.read() as session:
        assert len(list_steps(session, ink.key, to_undo=True)) == 4
    for step in (second, first, flips[1], flips[0]):
        assert ink.undo(step).changed == 2
    assert ink.captions() == ["a", "b"]
    with pytest.raises(Conflict, match="undone already"):
        ink.undo(first)


def test_repeats_flips_set_aside_and_deletion_are_steps_too(database: Database) -> None:
    ink = Set(database, "a", "b")
    steps = [
        ink.apply(Edit(EditAction.REPEATS, repeats=3)),
        ink.apply(Edit(EditAction.NEVER_FLIP), ink.chosen(0)),
        ink.apply(Edit(EditAction.SET_ASIDE), ink.chosen(0)),
        ink.apply(Edit(EditAction.DELETE), ink.chosen(1)),
    ]
    (image,) = ink.images()
    assert (image.repeats, image.never_flip, image.set_aside) == (3, True, True)
    assert ink.apply(Edit(EditAction.SET_ASIDE, value=False)).changed == 1
    assert ink.undo(steps[2]).left_out == [LeftOut("0.png", "It was changed since.")]
    for step in (steps[3], steps[1], steps[0]):
        assert ink.undo(step).left_out == []
    assert [(image.repeats, image.never_flip) for image in ink.images()] == [(1, False)] * 2


def test_a_copy_that_comes_back_gets_the_captions_that_it_lacks(database: Database) -> None:
    ink, other = Set(database, "a fox", "an owl"), Set(database, name="Other")
    copy = Edit(EditAction.COPY, dataset_id=other.key)
    with database.write() as session:
        for image_id in ink.ids:
            change_caption(session, image_id, CaptionKind.TAGS, CaptionChange("tags"))
            change_caption(session, image_id, CaptionKind.SHORT, CaptionChange("short"))
    ink.apply(copy)
    with database.write() as session:
        for image in service.list_images(session, other.key):
            remove_caption(session, image.key, CaptionKind.TAGS)
            remove_caption(session, image.key, CaptionKind.SHORT)
            service.delete_image(session, image.key)
        change_first_kind(session, restore(session, Image, image.key).key, CaptionKind.TAGS)
        service.delete_image(session, image.key)
    ink.apply(copy)
    with database.read() as session:
        captions = [
            {one.kind: one.caption for one in captions_of_image(session, image)}
            for image in service.list_images(session, other.key)
        ]
    assert captions == [
        {"long": "a fox", "short": "short", "tags": "tags"},
        {"tags": "an owl", "short": "short"},
    ]


def test_two_moves_between_the_same_datasets_do_not_wait_for_each_other(
    database: Database,
) -> None:
    low, high = Set(database), Set(database, "an owl", name="Other")
    back = Thread(target=high.apply, args=(Edit(EditAction.MOVE, dataset_id=low.key),))
    with database.write() as session:
        service.get_dataset(session, low.key, lock=True)
        start_and_wait(back, database)
        service.get_dataset(session, high.key, lock=True)  # which the other one does not have yet
    back.join()
    assert high.images() == []


def test_images_are_moved_and_copied_to_a_dataset_that_does_not_have_them(
    database: Database,
) -> None:
    ink, other = Set(database, "a", "b", "c"), Set(database, "x", name="Other")
    with database.write() as session:
        session.add(ImageCaption(image_id=ink.ids[1], kind="tags", caption="t", version=1))
    moved = ink.apply(Edit(EditAction.MOVE, dataset_id=other.key))
    assert moved.left_out == [LeftOut("0.png", "It is already in “Other”.")]
    assert (ink.captions(), other.captions()) == (["a"], ["x", "b", "c"])
    with database.read() as session:
        kept = session.exec(select(ImageCaption.caption)).all()
        assert [step.sentence for step in list_steps(session, ink.key)] == [
            "Moved 2 images to “Other”"
        ]
    assert kept == ["t", "t"]
    other.ids = [image.key for image in other.images()]
    other.write(1, "edited there")
    assert ink.undo(moved).left_out == [LeftOut("1.png", "Its copy was edited since.")]
    assert (ink.captions(), other.captions()) == (["a", "c"], ["x", "edited there"])
    copied = ink.apply(Edit(EditAction.COPY, dataset_id=other.key), ink.chosen(2))
    assert (ink.captions(), other.captions()) == (["a", "c"], ["x", "edited there", "c"])
    assert ink.undo(copied).changed == 1
    assert (ink.captions(), other.captions()) == (["a", "c"], ["x", "edited there"])
    with pytest.raises(InvalidInput, match="another dataset than this one"):
        ink.plan(Edit(EditAction.COPY, dataset_id=ink.key))


def test_all_captions_of_an_image_are_edited_or_those_of_one_kind(database: Database) -> None:
    ink = Set(database, "a fox")
    with database.write() as session:
        session.add(ImageCaption(image_id=ink.ids[0], kind="tags", caption="fox", version=1))
    both = ink.apply(ADD_INK)
    assert both.changed == 2
    ink.apply(Edit(EditAction.APPEND, "red", kind="tags"))  # type: ignore[arg-type]
    ink.apply(Edit(EditAction.WRITE, "an owl"))

    def tags() -> tuple[str, int]:
        with database.read() as session:
            row = session.exec(select(ImageCaption)).one()
            return row.caption, row.version

    assert (ink.captions(), tags()) == (["an owl"], ("ink, fox, red", 3))
    assert len(ink.undo(both).left_out) == 2


def test_old_steps_cannot_be_undone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.registry.datasets.edits.applying.KEPT_EDITS", 1)
    assert KEPT_EDITS > 20
    ink = Set(database, "a")
    first = ink.apply(ADD_INK)
    ink.apply(Edit(EditAction.APPEND, "red"))
    with pytest.raises(Conflict, match="too old to be undone"):
        ink.undo(first)
    with database.read() as session:
        assert [step.can_undo for step in list_steps(session, ink.key)] == [True, False]
        assert session.exec(select(DatasetEdit.changed)).all() == [1, 1]


def test_ids_and_what_was_seen_are_read_back() -> None:
    assert read_ids("3 5,8-10") == {3, 5, 8, 9, 10}
    seen = Seen({(3, ""): 1, (3, "tags"): 4, (120, ""): 2})
    assert read_seen(seen.token()) == seen
    for text in ("x", "3-1", "0", "1-99999999"):
        with pytest.raises(InvalidInput, match="Select images by their ids"):
            read_ids(text)
    for text in ("1", "0.1", "-5.1", "99999999999999999999.1"):
        with pytest.raises(InvalidInput, match="Make the preview again"):
            read_seen(text)


FROM_NAMES = Edit(EditAction.FILE_NAMES)


def named(database: Database, **captions: str) -> Set:
    """A dataset of images with these file names and captions."""
    found = Set(database, *captions.values())
    with database.write() as session:
        for image, name in zip(service.list_images(session, found.key), captions, strict=True):
            image.filename = f"openmoji_{name}.png"
            session.add(image)
    return found


def test_file_names_fill_empty_captions_in_one_step_that_is_undone(database: Database) -> None:
    emoji = named(database, red_fox="", owl="a bird", car_2="", _3="")
    plan = emoji.plan(FROM_NAMES)
    assert (plan.sentence, plan.changed, plan.unchanged) == ("Changes 2 captions", 2, 1)
    assert plan.left_out == [LeftOut("openmoji__3.png", SHARED)]
    outcome = emoji.apply(FROM_NAMES, seen=plan.seen)
    assert emoji.captions() == ["red fox", "a bird", "car", ""]
    with database.read() as session:
        (step,) = list_steps(session, emoji.key)
    assert step.sentence == "Filled 2 captions from file names"
    emoji.undo(outcome)
    assert emoji.captions() == ["", "a bird", "", ""]


def test_file_names_give_what_the_preview_showed_although_an_image_was_deleted(
    database: Database,
) -> None:
    emoji = named(database, red_fox="", car="")
    seen = emoji.plan(FROM_NAMES).seen
    emoji.delete(1)
    emoji.apply(FROM_NAMES, seen=seen)
    assert emoji.captions() == ["red fox"]


def test_a_file_name_without_words_is_left_out_with_the_reason(database: Database) -> None:
    emoji = Set(database, "", "an owl")
    plan = emoji.plan(FROM_NAMES)
    assert (plan.changed, plan.unchanged, plan.left_out) == (0, 1, [LeftOut("0.png", CODE)])


def test_file_names_fill_the_caption_of_a_kind(database: Database) -> None:
    emoji = named(database, red_fox="a fox", owl="an owl")
    with database.write() as session:
        change_caption(session, emoji.ids[0], CaptionKind.TAGS, CaptionChange("fox"))
        change_caption(session, emoji.ids[0], CaptionKind.TAGS, CaptionChange(""))
    emoji.apply(Edit(EditAction.FILE_NAMES, kind=CaptionKind.TAGS))
    with database.read() as session:
        row = session.exec(select(ImageCaption)).one()
    assert (row.caption, emoji.captions()) == ("openmoji red fox", ["a fox", "an owl"])
