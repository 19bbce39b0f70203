"""Several captions of an image, their history, and the way back."""

from __future__ import annotations

import pytest
from sqlmodel import Session, col, select

from app.registry.base_models.service import ensure_embedded
from app.registry.datasets import pinned, service
from app.registry.datasets.caption_writes import STILL_TYPING
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    caption_history,
    change_caption,
    change_first_kind,
    remove_caption,
    restore_caption,
)
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.several_captions import captions_of_image
from app.registry.datasets.training_side import side_of, tokens_for, tokens_of
from app.registry.db import Database
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import CaptionRevision, Image
from worker.core.words import CaptionKind

LONG, SHORT, TAGS = CaptionKind


def make_image(session: Session, caption: str | None = "a red fox") -> Image:
    dataset = service.create_dataset(session, "Ink")
    new = NewImage("fox.png", "a" * 64, "c" * 64, "t" * 64, 8, 8, 1, caption=caption)
    new = NewImage(**vars(new) | {"caption_file": "fox.txt"})
    return service.add_images(session, dataset.key, [new])[0].image


def test_captions_are_used_by_their_shares_and_an_empty_one_not_at_all(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        change_caption(session, image.key, LONG, CaptionChange(share=3))
        change_caption(session, image.key, TAGS, CaptionChange("fox, red", share=2))
        change_caption(session, image.key, SHORT, CaptionChange("fox"))
        change_caption(session, image.key, SHORT, CaptionChange(""))
        found = captions_of_image(session, image)
        item = pinned.current_items(session, image.dataset_id)[0]
    assert [(one.kind, one.share, one.used) for one in found] == [
        (LONG, 3, 0.6),
        (SHORT, 1, 0.0),
        (TAGS, 2, 0.4),
    ]
    assert [one["kind"] for one in item["captions"]] == [LONG, TAGS]


def test_an_image_whose_first_caption_is_empty_is_trained_with_the_other(
    database: Database,
) -> None:
    with database.write() as session:
        image = make_image(session, caption=None)
        assert [one.used for one in captions_of_image(session, image)] == [1.0]
        change_caption(session, image.key, TAGS, CaptionChange("fox"))
        item = pinned.current_items(session, image.dataset_id)[0]
    assert item["caption"] == "fox"
    assert item["captions"] == [{"kind": "tags", "caption": "fox", "share": 1}]


@pytest.mark.parametrize("share", [0, -1, 101, 10**9])
def test_a_share_is_from_1_to_100(database: Database, share: int) -> None:
    with database.write() as session:
        image = make_image(session)
        with pytest.raises(InvalidInput, match="share from 1 to 100"):
            change_caption(session, image.key, LONG, CaptionChange(share=share))


@pytest.mark.parametrize("kind", [LONG, TAGS])
def test_the_same_caption_edited_in_two_tabs_is_not_overwritten(
    database: Database, kind: CaptionKind
) -> None:
    with database.write() as session:
        image = make_image(session)
        seen = change_caption(session, image.key, kind, CaptionChange("mine")).version
        change_caption(session, image.key, kind, CaptionChange("theirs", seen_version=seen))
        with pytest.raises(Conflict) as refused:
            change_caption(session, image.key, kind, CaptionChange("old", seen_version=seen))
        assert refused.value.fields == {"caption": "theirs", "caption_version": str(seen + 1)}


@pytest.mark.parametrize("kind", [LONG, TAGS])
def test_invisible_characters_are_left_out_and_a_megabyte_is_refused(
    database: Database, kind: CaptionKind
) -> None:
    with database.write() as session:
        image = make_image(session)
        change = CaptionChange("a\x00 b\x1b\u202egnp\u202c\n\tשלום\u200f")
        assert change_caption(session, image.key, kind, change).caption == "a bgnp שלום\u200f"
        with pytest.raises(InvalidInput, match=r"1,000,000 characters; at most 2,000"):
            change_caption(session, image.key, kind, CaptionChange("x" * 1_000_000))


def test_the_history_says_who_wrote_a_caption_and_gives_it_back(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        change_caption(session, image.key, LONG, CaptionChange("a fox"))
        change_caption(session, image.key, TAGS, CaptionChange("fox"))
        restored = restore_caption(session, image.key, LONG, 1)
        assert (restored.caption, restored.version) == ("a red fox", 3)
        history = caption_history(session, image)
    assert [(one.kind, one.version, one.writer, one.is_current) for one in history] == [
        (LONG, 3, f"restored, version 1 of {history[3].written_at:%Y-%m-%d %H:%M}", True),
        (TAGS, 1, "by hand", True),
        (LONG, 2, "by hand", False),
        (LONG, 1, "from fox.txt", False),
    ]
    assert [one.restored_from for one in history] == [history[3].written_at, None, None, None]


def test_a_removed_caption_can_be_restored_and_counts_on(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        change_caption(session, image.key, TAGS, CaptionChange("fox"))
        remove_caption(session, image.key, TAGS)
        assert len(captions_of_image(session, image)) == 1
        restored = restore_caption(session, image.key, TAGS, 1)
        assert (restored.caption, restored.version, restored.share) == ("fox", 2, 1)


def test_a_restored_caption_has_the_share_that_it_had_when_it_was_removed(
    database: Database,
) -> None:
    with database.write() as session:
        image = make_image(session)
        change_caption(session, image.key, TAGS, CaptionChange("fox", share=2))
        change_caption(session, image.key, TAGS, CaptionChange("red, fox", share=7))
        remove_caption(session, image.key, TAGS)
        assert restore_caption(session, image.key, TAGS, 1).share == 7
        change_caption(session, image.key, TAGS, CaptionChange(share=4))
        assert restore_caption(session, image.key, TAGS, 2).share == 4
        remove_caption(session, image.key, TAGS)
        assert change_caption(session, image.key, TAGS, CaptionChange("new")).share == 1


def test_what_is_gone_cannot_be_restored_or_removed(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        for kind, version in ((LONG, 9), (TAGS, 1)):
            with pytest.raises(NotFound, match="gone"):
                restore_caption(session, image.key, kind, version)
        with pytest.raises(NotFound):
            remove_caption(session, image.key, TAGS)
        with pytest.raises(NotFound):
            change_caption(session, image.key, TAGS, CaptionChange(share=2))
        with pytest.raises(Conflict, match="first caption"):
            remove_caption(session, image.key, LONG)


def test_the_first_caption_can_be_of_another_kind(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        change_caption(session, image.key, SHORT, CaptionChange("fox"))
        with pytest.raises(Conflict, match="another caption of the kind short"):
            change_first_kind(session, image.key, SHORT)
        change_caption(session, image.key, TAGS, CaptionChange("red, fox"))
        remove_caption(session, image.key, TAGS)
        change_first_kind(session, image.key, TAGS)
        found = captions_of_image(session, image)
    assert [(one.kind, one.caption, one.version) for one in found] == [
        (TAGS, "a red fox", 2),
        (SHORT, "fox", 1),
    ]


def test_what_is_typed_at_one_go_is_one_change(database: Database) -> None:
    with database.write() as session:
        image = make_image(session)
        for text in ("a", "a gray", "a gray fox"):
            change_caption(session, image.key, LONG, CaptionChange(text), origin=STILL_TYPING)
        rows = session.exec(
            select(CaptionRevision.caption, CaptionRevision.version).order_by(
                col(CaptionRevision.id)
            )
        ).all()
        assert image.caption_version == 4
    assert rows == [("a red fox", 1), ("a gray fox", 4)]


def test_tokens_are_counted_as_the_base_model_does_that_a_form_begins_with(
    database: Database,
) -> None:
    with database.write() as session:
        key = make_image(session).dataset_id
        tokens = tokens_of(session, key)
        assert (tokens.limit, tokens.base, tokens.count("a red fox")) == (75, "", 3)
        ensure_embedded(session)
        assert (tokens_of(session, key).limit, tokens_of(session, key).base) == (22, "starter")


def test_a_base_with_a_large_text_encoder_reads_long_captions() -> None:
    base = BaseModel(name="Z-Image", source="/z-image", family="zimage", resolution=1024)
    tokens = tokens_for(side_of(base))
    assert (tokens.limit, tokens.base) == (500, "Z-Image")
    assert not tokens.is_too_long("a red fox, " * 100)
    assert tokens.is_too_long("a red fox, " * 200)
