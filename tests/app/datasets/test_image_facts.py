"""Facts besides captions on the page of an image: neighbors, likeness, runs."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.datasets import service
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_facts import NearestImage, image_facts
from app.registry.datasets.listing.pages import Neighbors, find_neighbors
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database
from app.registry.images.pixels import mirrored_hash
from app.registry.runs.requests import RunRequest, create_run
from app.registry.tables.datasets import Dataset, Image, ImageMeasure


def add_images(session: Session, captions: str) -> tuple[Dataset, list[Image]]:
    """A dataset with an image for each letter; a space has no caption."""
    dataset = service.create_dataset(session, "Ink")
    new = [
        NewImage(
            f"{n}.png", f"{n:x}" * 64, f"{n + 8:x}" * 64, "f" * 64, 8, 8, 1, caption=text.strip()
        )
        for n, text in enumerate(captions)
    ]
    return dataset, [added.image for added in service.add_images(session, dataset.key, new)]


def test_neighbors_are_found_in_the_order_of_the_filter(database: Database) -> None:
    with database.write() as session:
        dataset, images = add_images(session, "a b c")
        keys = [image.key for image in images]
        newest = ImageFilter.from_query("sort=newest")
        found = find_neighbors(session, dataset, keys[1], newest)
        assert found == Neighbors(keys[2], keys[0], 4, 5)
        bare = ImageFilter.from_query("show=uncaptioned&sort=newest")
        found = find_neighbors(session, dataset, keys[2], bare)  # not one of them
        assert found == Neighbors(keys[3], keys[1], None, 2)
        assert find_neighbors(session, dataset, keys[4], bare).previous is None


def test_the_most_alike_image_is_found_by_the_perceptual_hash(database: Database) -> None:
    with database.write() as session:
        _, images = add_images(session, "abc")
        assert not image_facts(session, images[0]).is_measured
        for image, hashed in zip(
            images, ("00000000000000ff", "ffff000000000000", "0f"), strict=True
        ):
            session.add(
                ImageMeasure(
                    clean_sha256=image.clean_sha256,
                    measure_version=1,
                    sharpness=0.1,
                    perceptual_hash=hashed.rjust(16, "0"),
                )
            )
        session.flush()
        facts = image_facts(session, images[0])
        assert facts.nearest is not None
        assert (facts.nearest.filename, facts.nearest.bits) == ("2.png", 4)
        assert facts.nearest.is_near_duplicate
        assert facts.is_blurry


def test_a_mirrored_copy_is_the_nearest_other_image(database: Database) -> None:
    with database.write() as session:
        _, images = add_images(session, "abc")
        for image, hashed in zip(images, (0xFF, mirrored_hash(0x1FE), 0x3FFFF), strict=True):
            session.add(
                ImageMeasure(
                    clean_sha256=image.clean_sha256,
                    measure_version=1,
                    perceptual_hash=f"{hashed:016x}",
                )
            )
        session.flush()
        nearest = image_facts(session, images[0]).nearest
        assert nearest == NearestImage(images[1].key, "1.png", 2, is_mirrored=True)
        assert nearest.is_near_duplicate


def test_the_runs_on_an_image_are_listed_newest_first(database: Database, ready_base: None) -> None:
    with database.write() as session:
        dataset, images = add_images(session, "ab")
        request = RunRequest(dataset.key, name="One")
        first = create_run(session, request).key
        service.change_image(session, images[1].key, set_aside=True)
        second = create_run(session, request).key
        assert image_facts(session, images[0]).runs == [(second, "One"), (first, "One")]
        assert image_facts(session, images[1]).runs == [(first, "One")]
