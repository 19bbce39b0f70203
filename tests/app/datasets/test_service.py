"""Datasets in the registry, on SQLite and on PostgreSQL."""

from __future__ import annotations

from threading import Thread

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from app.registry.datasets import pinned, service
from app.registry.datasets.captions import CaptionFromFile
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.sent_files.pairing import PairedCaptions
from app.registry.db import Database
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.runs import requests
from app.registry.runs import service as runs
from app.registry.tables.datasets import CaptionRevision, ImageCaption
from app.registry.tables.runs import Run
from tests.row_locks import start_and_wait


def picture(number: int, caption: str | None = None) -> NewImage:
    digest = f"{number:064x}"
    return NewImage(
        filename=f"{number}.png",
        sha256=digest,
        clean_sha256=digest,
        thumbnail_sha256=digest,
        width=64 + number,
        height=64,
        size_bytes=100,
        caption=caption,
    )


def filled(database: Database, *captions: str | None) -> int:
    with database.write() as session:
        dataset = service.create_dataset(session, "Chalk Board!", trigger_word="chalk")
        service.add_images(
            session, dataset.key, [picture(n, caption) for n, caption in enumerate(captions)]
        )
    return dataset.key


def test_names_give_addresses_that_never_collide(database: Database) -> None:
    with database.write() as session:
        slugs = [
            service.create_dataset(session, name).slug
            for name in ("Öl & Kreide", "Ol Kreide", "!?")
        ]
    assert slugs == ["ol-kreide", "ol-kreide-2", "dataset"]


def test_the_images_that_are_there_are_asked_for_together(database: Database) -> None:
    key = filled(database, "a fox", "a boat")
    asked: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", note := lambda *a: asked.append(a[2]))
    with database.write() as session:
        added = service.add_images(session, key, [picture(n) for n in (0, 1, 2, 2, 3)])
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert [one.duplicate for one in added] == [True, True, False, True, False]
    by_hash = [
        one for one in asked if "FROM image " in one.replace("\n", " ") and "sha256 IN" in one
    ]
    assert len(by_hash) == 1


def test_the_same_picture_twice_is_one_picture(database: Database) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        added = service.add_images(session, key, [picture(0, "another text"), picture(1)])
    assert [row.duplicate for row in added] == [True, False]
    assert added[0].image.caption == "a fox"
    with database.read() as session:
        assert len(service.list_images(session, key)) == 2


def test_a_deleted_picture_comes_back_when_it_is_sent_again(database: Database) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        image = service.list_images(session, key)[0]
        service.delete_image(session, image.key)
        assert service.list_images(session, key) == []
        added = service.add_images(session, key, [picture(0)])
    assert (added[0].duplicate, added[0].image.caption) == (False, "a fox")


def test_a_summary_counts_pictures_captions_and_the_smallest_side(database: Database) -> None:
    filled(database, "a fox", None, "an owl")
    with database.read() as session:
        (row,) = service.list_datasets(session)
    assert (row.image_count, row.captioned_count, row.smallest_side) == (3, 2, 64)
    assert [image.filename for image in row.collage] == ["0.png", "1.png", "2.png"]


def test_each_of_many_summaries_has_its_own_first_images(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "COLLAGES_AT_ONCE", 2)
    keys = [filled(database, *captions) for captions in (["a"] * 6, [], ["b"], ["c", "d"], ["e"])]
    with database.read() as session:
        rows = {row.dataset.key: row for row in service.list_datasets(session)}
        for key in keys:
            first = service.list_images(session, key)[: service.COLLAGE]
            assert [image.key for image in rows[key].collage] == [image.key for image in first]
        assert service.list_datasets(session, q="no such dataset") == []


def test_every_caption_that_was_written_is_kept(database: Database) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        image = service.list_images(session, key)[0]
        service.caption_image(session, image.key, "a red fox")
        service.caption_image(session, image.key, "a red fox")
        history = session.exec(
            select(CaptionRevision.caption, CaptionRevision.source).order_by(
                col(CaptionRevision.id)
            )
        ).all()
    assert history == [("a fox", "import"), ("a red fox", "hand")]


def test_two_writers_of_one_caption_do_not_overwrite_each_other(database: Database) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        image = service.list_images(session, key)[0]
        service.caption_image(session, image.key, "first", seen_version=1)
    with pytest.raises(Conflict) as refusal, database.write() as session:
        service.caption_image(session, image.key, "second", seen_version=1)
    assert refusal.value.fields == {"caption": "first", "caption_version": "2"}


def test_a_caption_of_ten_thousand_characters_is_refused_and_the_old_one_kept(
    database: Database,
) -> None:
    key = filled(database, "a fox")
    with database.read() as session:
        image = service.list_images(session, key)[0]
    with (
        pytest.raises(InvalidInput, match="10,000 characters; at most 2,000"),
        database.write() as s,
    ):
        service.caption_image(s, image.key, "x" * 10_000)
    with database.read() as session:
        assert service.get_image(session, image.key).caption == "a fox"


def test_a_version_is_pinned_once_and_an_edit_makes_another(database: Database) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        dataset = service.get_dataset(session, key)
        first, again = (pinned.pin_version(session, dataset).key for _ in range(2))
        service.caption_image(session, service.list_images(session, key)[0].key, "an owl")
        other = pinned.pin_version(session, dataset)
    assert first == again != other.key
    assert other.items[0]["caption"] == "an owl"


def test_a_dataset_a_waiting_run_uses_is_not_deleted(database: Database, ready_base: None) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        run = requests.create_run(session, requests.RunRequest(dataset_id=key))
    with pytest.raises(Conflict, match="uses this dataset"), database.write() as session:
        service.delete_dataset(session, key)
    with database.write() as session:
        runs.cancel_run(session, run.key)
        service.delete_dataset(session, key)
    with database.write() as session, pytest.raises(NotFound):
        service.get_dataset(session, key)
    with database.read() as session:
        assert session.get_one(Run, run.key).dataset_version_id


def test_captions_that_come_later_find_their_pictures(database: Database) -> None:
    key = filled(database, None, "an owl")
    with database.write() as session:
        later = {
            stem: PairedCaptions(CaptionFromFile(text, f"{stem}.txt"))
            for stem, text in (("0", "a fox"), ("1", "no"), ("9", "nobody"))
        }
        found = service.caption_by_stem(session, key, later)
        captions = [image.caption for image in service.list_images(session, key)]
        written = session.exec(
            select(CaptionRevision.source, CaptionRevision.source_name).order_by(
                col(CaptionRevision.id)
            )
        ).all()
    assert set(found) == {"0", "1"}
    assert found["1"].unused == (CaptionFromFile("no", "1.txt"),)
    assert written[:3] == [("import", None), ("import", "0.txt"), ("import", "1.txt")]
    assert captions == ["a fox", "an owl"], "what is there stays, the other is in its history"


@pytest.mark.parametrize("is_sent_again", [False, True])
def test_a_caption_written_during_an_upload_is_kept(
    database: Database, *, is_sent_again: bool
) -> None:
    key = filled(database, None)
    with database.read() as session:
        (image,) = service.list_images(session, key)
    stem = image.filename.removesuffix(".png")
    sent = [NewImage(image.filename, image.sha256, "c" * 64, "t" * 64, 8, 8, 1, caption="theirs")]
    loose = {stem: PairedCaptions(CaptionFromFile("theirs", "x.txt"))}
    unused: list[str] = []

    def receive() -> None:
        with database.write() as session:
            added = (
                service.add_images(session, key, sent)
                if is_sent_again
                else service.caption_by_stem(session, key, loose).values()
            )
            unused.extend(one.text for row in added for one in row.unused)

    files = Thread(target=receive)
    with database.write() as session:
        service.caption_image(session, image.key, "mine")
        session.flush()
        start_and_wait(files, database)
    files.join()
    with database.read() as session:
        (image,) = service.list_images(session, key)
    assert (image.caption, unused) == ("mine", ["theirs"])


def test_how_a_picture_is_shown_is_pinned_with_its_version(database: Database) -> None:
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink")
        new = [NewImage(f"{n}.png", n * 64, "c" * 64, "t" * 64, 8, 8, 1) for n in "ab"]
        first, second = (row.image for row in service.add_images(session, dataset.key, new))
        usual = pinned.pin_version(session, dataset)
        service.change_image(session, first.key, repeats=3)
        service.change_image(session, second.key, never_flip=True)
        session.flush()
        changed = pinned.pin_version(session, dataset)
    assert usual.fingerprint != changed.fingerprint
    assert [(i.get("repeats"), i.get("never_flip")) for i in usual.items] == [(None, None)] * 2
    assert {(i.get("repeats"), i.get("never_flip")) for i in changed.items} == {
        (3, None),
        (None, True),
    }


def test_several_captions_focus_and_name_are_pinned_and_what_is_set_aside_is_not(
    database: Database,
) -> None:
    key = filled(database, "a fox", "an owl", "a cat")
    with database.write() as session:
        dataset = service.get_dataset(session, key)
        first, second, third = service.list_images(session, key)
        first.caption_share, first.focus_x, first.focus_y = 3, 0.25, 1.0
        session.add(ImageCaption(image_id=first.key, kind="tags", caption="fox, red"))
        third.set_aside = True
        session.flush()
        version = pinned.pin_version(session, dataset)
        summary = service.summary(session, dataset)
    assert (summary.image_count, summary.trained_count) == (3, 2)
    one, two = version.items
    assert one["captions"] == [
        {"kind": "long", "caption": "a fox", "share": 3},
        {"kind": "tags", "caption": "fox, red", "share": 1},
    ]
    assert (one["caption"], one["focus"]) == ("a fox", [0.25, 1.0])
    assert two.keys() == {"sha256", "clean_sha256", "filename", "caption", "width", "height"}
    assert two["filename"] == second.filename


def test_a_summary_counts_what_was_changed_a_moment_ago(database: Database) -> None:
    key = filled(database, "a fox", None)
    with database.write() as session:
        dataset = service.get_dataset(session, key)
        service.caption_image(session, service.list_images(session, key)[1].key, "an owl")
        assert service.summary(session, dataset).captioned_count == 2


@pytest.mark.parametrize("repeats", [0, 101])
def test_a_picture_is_shown_a_hundred_times_at_most(database: Database, repeats: int) -> None:
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink")
        new = [NewImage("a.png", "a" * 64, "c" * 64, "t" * 64, 8, 8, 1)]
        (row,) = service.add_images(session, dataset.key, new)
        with pytest.raises(InvalidInput, match="repeats from 1 to 100"):
            service.change_image(session, row.image.key, repeats=repeats)


def test_datasets_are_counted_and_listed_page_by_page(database: Database) -> None:
    with database.write() as session:
        for name in ("Boats", "Chalk", "Boats at night"):
            service.create_dataset(session, name)
        assert service.page_datasets(session, q="boat").total == 2
        second = service.page_datasets(session, number=2, size=2)
    assert (second.total, [row.dataset.name for row in second.items]) == (3, ["Boats"])
