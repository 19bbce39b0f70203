"""The pinned properties of each image, and the changes that make another version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from sqlmodel import Session

from app.registry.datasets import pinned, service
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database
from app.registry.errors import InvalidInput
from app.registry.runs import rerun
from app.registry.runs.requests import RunRequest, create_run
from app.registry.tables.datasets import Dataset, Image, ImageCaption


def foxes(session: Session, captions: str = "ab") -> tuple[Dataset, list[Image]]:
    """A dataset with an image for each of these captions."""
    dataset = service.create_dataset(session, "Foxes")
    new = [
        NewImage(f"{name}.png", name * 64, "c" * 64, "t" * 64, 8, 6, 1, caption=name)
        for name in captions
    ]
    return dataset, [row.image for row in service.add_images(session, dataset.key, new)]


def fingerprint_before(images: list[Image]) -> str:
    """The fingerprint by the code of Brushwork before version items had names and captions."""
    items = [
        {
            "sha256": image.sha256,
            "clean_sha256": image.clean_sha256,
            "caption": image.caption,
            "width": image.width,
            "height": image.height,
            **({"repeats": image.repeats} if image.repeats != 1 else {}),
            **({"never_flip": True} if image.never_flip else {}),
        }
        for image in images
    ]
    content = json.dumps(items, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(content).hexdigest()


def test_a_dataset_without_anything_new_keeps_its_fingerprint(database: Database) -> None:
    with database.write() as session:
        dataset, images = foxes(session)
        service.change_image(session, images[0].key, repeats=3, never_flip=True)
        assert pinned.pin_version(session, dataset).fingerprint == fingerprint_before(images)


def test_a_version_that_was_pinned_without_names_gets_them(database: Database) -> None:
    """It is the same version: runs on it and new runs are on the same data."""
    with database.write() as session:
        dataset, _ = foxes(session)
        old = pinned.pin_version(session, dataset)
        old.items = [{k: v for k, v in item.items() if k != "filename"} for item in old.items]
    with database.write() as session:
        new = pinned.pin_version(session, dataset)
        assert new.key == old.key
        assert [item["filename"] for item in new.items] == ["a.png", "b.png"]
        assert new.fingerprint == pinned.fingerprint_of(new.items)


def _add_caption(session: Session, image: Image) -> None:
    session.add(ImageCaption(image_id=image.key, kind="tags", caption="fox, red", share=2))


def _set_kind(_: Session, image: Image) -> None:
    image.caption_kind = "tags"


def _set_focus(_: Session, image: Image) -> None:
    image.focus_x, image.focus_y = 0.25, 0.5


def _set_aside(_: Session, image: Image) -> None:
    image.set_aside = True


@pytest.mark.parametrize("change", [_add_caption, _set_kind, _set_focus, _set_aside])
def test_what_training_sees_makes_another_version(
    sqlite_database: Database, change: Callable[[Session, Image], None]
) -> None:
    with sqlite_database.write() as session:
        dataset, images = foxes(session)
        before = pinned.pin_version(session, dataset)
        change(session, images[0])
        session.flush()
        assert pinned.pin_version(session, dataset).fingerprint != before.fingerprint


def test_captions_shares_focus_and_names_are_pinned(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        dataset, images = foxes(session)
        _add_caption(session, images[0])
        _set_focus(session, images[0])
        _set_kind(session, images[1])
        session.flush()
        items = pinned.pin_version(session, dataset).items
    assert items[0]["captions"] == [
        {"kind": "long", "caption": "a", "share": 1},
        {"kind": "tags", "caption": "fox, red", "share": 2},
    ]
    assert (items[0]["focus"], items[0]["filename"]) == ([0.25, 0.5], "a.png")
    assert items[1]["captions"] == [{"kind": "tags", "caption": "b", "share": 1}]
    assert "focus" not in items[1]


def test_an_image_that_is_set_aside_is_not_trained_on(database: Database, ready_base: None) -> None:
    with database.write() as session:
        dataset, (first, second) = foxes(session)
        everything = pinned.pin_version(session, dataset)
        first.set_aside = True
        session.flush()
        assert [item["caption"] for item in pinned.pin_version(session, dataset).items] == ["b"]
        assert str(rerun.changes_since(session, everything)) == "1 image removed"
        assert service.summary(session, dataset).trained_count == 1
        second.set_aside = True
        session.flush()
        with pytest.raises(InvalidInput, match="set aside") as refused:
            create_run(session, RunRequest(dataset_id=dataset.key))
        assert refused.value.fields.keys() == {"dataset_id"}


def test_the_captions_of_what_is_deleted_are_all_named(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        dataset, images = foxes(session, "a")
        _add_caption(session, images[0])
        session.flush()
        version = pinned.pin_version(session, dataset)
        deletion = pinned.prune_versions(session, [version.key])
    assert deletion.captions == {pinned.caption_hash(text) for text in ("a", "fox, red")}
