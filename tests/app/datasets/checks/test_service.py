"""The checks of a dataset in the registry: what is read, and when it is read again."""

from __future__ import annotations

from app.registry.blobs import findings
from app.registry.datasets import service
from app.registry.datasets.checks.findings import Check, Report
from app.registry.datasets.checks.service import check_dataset, known_report
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database
from app.registry.tables.blobs import FileProblem
from app.registry.tables.datasets import Image, ImageCaption


def picture(number: int, caption: str) -> NewImage:
    digest = f"{number:064x}"
    return NewImage(
        filename=f"{number}.png",
        sha256=digest,
        clean_sha256=digest,
        thumbnail_sha256=digest,
        width=512,
        height=512,
        size_bytes=100,
        caption=caption or None,
    )


def filled(database: Database, *captions: str, trigger_word: str = "ink") -> int:
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink", trigger_word=trigger_word)
        images = [picture(number, caption) for number, caption in enumerate(captions, start=1)]
        service.add_images(session, dataset.key, images)
    return dataset.key


def checked(database: Database, key: int) -> Report:
    with database.read() as session:
        return check_dataset(session, service.get_dataset(session, key))


def found(database: Database, key: int) -> list[tuple[Check, int]]:
    """What was found, but that the datasets of these tests are small."""
    findings = checked(database, key).findings
    return [(one.check, one.count) for one in findings if one.check is not Check.FEW_IMAGES]


def image(database: Database, key: int, number: int) -> Image:
    with database.read() as session:
        return service.list_images(session, key)[number]


def test_captions_and_files_are_checked_and_what_is_clear_is_named(database: Database) -> None:
    key = filled(database, "ink, a fox", "an owl", "")
    report = checked(database, key)
    assert [(one.check, one.count) for one in report.findings] == [
        (Check.FEW_IMAGES, 3),
        (Check.NO_CAPTION, 1),
        (Check.TRIGGER_WORD, 1),
    ]
    assert Check.STYLE_WORDS in report.clear
    assert Check.REPEATED_WORDS not in report.clear  # nothing can be said of two captions
    assert (report.image_count, report.caption_count) == (3, 2)


def test_a_dataset_of_fewer_than_five_images_says_so(database: Database) -> None:
    titles = []
    for count in (1, 4, 5):
        report = checked(database, filled(database, *["ink"] * count))
        few = [one.title for one in report.open if one.check is Check.FEW_IMAGES]
        assert (not few) == (Check.FEW_IMAGES in report.clear)
        titles += few
    assert titles == ["Only 1 image to train on", "Only 4 images to train on"]


def test_a_report_is_kept_until_something_it_reads_changes(database: Database) -> None:
    key = filled(database, "ink, a fox", "an owl")
    first = checked(database, key)
    with database.read() as session:
        assert known_report(session, service.get_dataset(session, key)) is first
    with database.write() as session:
        service.caption_image(session, image(database, key, 1).key, "an owl, ink")
    with database.read() as session:
        assert known_report(session, service.get_dataset(session, key)) is None
    assert found(database, key) == []
    with database.write() as session:
        service.change_dataset(session, key, trigger_word="zork")
    assert found(database, key) == [(Check.TRIGGER_WORD, 2)]


def test_images_that_are_set_aside_or_deleted_are_not_checked(database: Database) -> None:
    key = filled(database, "an owl", "a fox", "ink, a cat")
    assert found(database, key) == [(Check.TRIGGER_WORD, 2)]
    with database.write() as session:
        row = service.get_image(session, image(database, key, 0).key)
        row.set_aside = True
        session.add(row)
    assert found(database, key) == [(Check.TRIGGER_WORD, 1)]
    with database.write() as session:
        service.delete_image(session, image(database, key, 1).key)
    assert found(database, key) == []


def test_further_captions_are_checked_if_they_have_a_share(database: Database) -> None:
    key = filled(database, "ink, a fox", "ink, an owl")
    with database.write() as session:
        key_of_image = image(database, key, 0).key
        session.add(ImageCaption(image_id=key_of_image, kind="short", caption="fox"))
        session.add(ImageCaption(image_id=key_of_image, kind="tags", caption="animal", share=0))
    assert found(database, key) == [(Check.TRIGGER_WORD, 1)]


def test_captions_that_the_base_model_cuts_off_are_found(database: Database) -> None:
    key = filled(database, "ink, a fox", "ink, " + "word " * 80, "ink, " + "owl " * 73)
    assert found(database, key) == [(Check.LONG, 1)]
    _, one = checked(database, key).findings
    assert one.title == "1 caption has more than 75 tokens"
    assert one.image_ids == (image(database, key, 1).key,)
    with database.write() as session:
        owls = image(database, key, 2).key
        session.add(ImageCaption(image_id=owls, kind="tags", caption="ink, " + "rain, " * 40))
    assert found(database, key) == [(Check.LONG, 2)]


def test_an_image_whose_file_is_lost_cannot_train(database: Database) -> None:
    key = filled(database, "ink, a fox", "ink, an owl")
    assert found(database, key) == []
    with database.write() as session:
        lost = image(database, key, 1).clean_sha256
        findings.note(session, [lost], FileProblem.MISSING)
    one, _ = checked(database, key).findings
    assert (one.check, one.level, one.title) == (Check.FILES, "error", "1 image cannot be read")


def test_an_empty_dataset_has_nothing_to_find(database: Database) -> None:
    report = checked(database, filled(database))
    assert (report.findings, report.clear, report.image_count) == ((), (), 0)
