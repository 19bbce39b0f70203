"""Pages of a dataset's images, their order by name and likeness, and the statistics."""

from __future__ import annotations

import pytest

from app.registry.datasets import service
from app.registry.datasets.figures import DatasetFigures, count_figures
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    change_caption,
    remove_caption,
)
from app.registry.datasets.listing.image_search import kept_figures, matching_ids
from app.registry.datasets.listing.index import natural_key, nearest_chain
from app.registry.datasets.listing.pages import page_of_image, read_page
from app.registry.datasets.listing.statistics import CountedWord, read_statistics
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database
from app.registry.tables.datasets import Dataset
from worker.core.words import CaptionKind


def new_images(*captions: str) -> list[NewImage]:
    return [
        NewImage(f"{n}.png", *(f"{n:064x}",) * 3, 500 + 100 * n, 600, 1, caption=caption)
        for n, caption in enumerate(captions)
    ]


@pytest.fixture
def seven(database: Database) -> Dataset:
    with database.write() as session:
        dataset = service.create_dataset(session, "Seven")
        service.add_images(session, dataset.key, new_images("", "b", "", "d", "", "f", ""))
    return dataset


def test_pages_go_on_whatever_is_deleted_or_captioned_in_between(
    database: Database, seven: Dataset
) -> None:
    bare = ImageFilter.from_query("show=uncaptioned&sort=newest")
    with database.write() as session:
        ids = [image.key for image in service.list_images(session, seven.key)]
        first = read_page(session, seven, bare, size=2)
        assert [image.key for image in first.images] == [ids[6], ids[4]]
        assert (first.page, first.pages, first.total, first.last) == (1, 2, 4, ids[4])
        service.caption_image(session, ids[4], "it does not match any longer")
        second = read_page(session, seven, bare, page=2, after=first.last, size=2)
        assert [image.key for image in second.images] == [ids[2], ids[0]]
        assert second.last is None
        service.delete_image(session, ids[4])
        again = read_page(session, seven, bare, page=2, after=ids[4], size=2)
        assert [image.key for image in again.images] == [ids[0]]  # by its number
        far = read_page(session, seven, page=10**9, size=2)
        assert ([image.key for image in far.images], far.page) == ([ids[5], ids[6]], 3)
        assert page_of_image(session, seven, ids[6]) == 1
        nothing = read_page(session, seven, ImageFilter.from_query("q=zzz"), page=4)
        assert (nothing.images, nothing.total, nothing.pages) == ([], 0, 1)


def test_a_caption_in_the_place_of_a_removed_one_is_a_change(
    database: Database, seven: Dataset
) -> None:
    long = ImageFilter.from_query("show=long")
    with database.write() as session:
        first, second, *_ = (image.key for image in service.list_images(session, seven.key))
        change_caption(session, first, CaptionKind.TAGS, CaptionChange("fox " * 100))
        assert matching_ids(session, seven, long) == [first]
        assert read_statistics(session, seven).longest == 100
        remove_caption(session, first, CaptionKind.TAGS)
        change_caption(session, second, CaptionKind.TAGS, CaptionChange("fox"))
        assert matching_ids(session, seven, long) == []
        assert read_statistics(session, seven).longest == 1


@pytest.mark.parametrize("sort", ["oldest", "newest"])
def test_pages_of_all_images_follow_their_order(
    database: Database, seven: Dataset, sort: str
) -> None:
    wanted = ImageFilter.from_query(f"sort={sort}")
    with database.write() as session:
        service.delete_image(session, matching_ids(session, seven, wanted)[2])
        expected = matching_ids(session, seven, wanted)
        last = None
        for number, start in enumerate((0, 4), start=1):
            for after in (None, last):
                page = read_page(session, seven, wanted, page=number, after=after, size=4)
                assert [image.key for image in page.images] == expected[start : start + 4]
                assert (page.page, page.start, page.total) == (number, start, 6)
            last = page.last
        assert last is None
        middle = read_page(session, seven, wanted, after=expected[1], size=3)
        assert [image.key for image in middle.images] == expected[2:5]
        assert (middle.start, middle.last) == (2, expected[4])
        service.delete_image(session, expected[1])
        by_number = read_page(session, seven, wanted, page=2, after=expected[1], size=4)
        assert [image.key for image in by_number.images] == expected[5:]


def test_the_figures_of_a_dataset_follow_its_changes(database: Database, seven: Dataset) -> None:
    def figures() -> DatasetFigures:
        kept = kept_figures(session, seven)
        assert {seven.key: kept} == count_figures(session, [seven.key])
        return kept

    with database.write() as session:
        assert figures() == DatasetFigures(7, 3, 7, 500)
        images = [image.key for image in service.list_images(session, seven.key)]
        service.caption_image(session, images[0], "now it has one")
        assert figures() == DatasetFigures(7, 4, 7, 500)
        service.change_image(session, images[1], set_aside=True)
        assert figures() == DatasetFigures(7, 4, 6, 500)
        service.delete_image(session, images[0])
        assert figures() == DatasetFigures(6, 3, 5, 600)


def test_names_are_ordered_as_people_count() -> None:
    names = ["b.png", "A 10.png", "a 9.png", "a 9b.png", "10.png", "²", "9" * 40 + ".png", "2.png"]
    assert sorted(names, key=natural_key) == [
        *("2.png", "10.png"),
        "9" * 40 + ".png",
        *("a 9.png", "a 9b.png", "A 10.png", "b.png", "²"),
    ]


def test_a_chain_goes_from_each_image_to_the_one_most_like_it() -> None:
    hashes = {1: 0b0, 2: 0xFFFF, 3: 0b1, 4: 0xFFFE, 5: 0b11}
    assert nearest_chain(hashes) == [1, 3, 5, 2, 4]
    assert nearest_chain({}) == []


def test_statistics_count_captions_and_change_with_them(database: Database) -> None:
    with database.write() as session:
        dataset = service.create_dataset(session, "Boats")
        captions = ("a red boat, ink", "A boat, boat", "the sea", "")
        service.add_images(session, dataset.key, new_images(*captions))
        found = read_statistics(session, dataset)
        assert found.words[:2] == (CountedWord("boat", 2), CountedWord("ink", 1))
        assert {one.word for one in found.words} == {"boat", "red", "ink", "sea"}  # no "a", "the"
        # as often as the filter `with` finds it: also in "a red boat"
        assert found.tags[0] == CountedWord("boat", 2)
        assert (found.images, found.captioned) == (4, 3)
        assert (found.shortest, found.median_length, found.longest) == (2, 3, 4)
        assert [(step.at_least, step.below, step.images) for step in found.sizes] == [
            (256, 512, 1),
            (512, 768, 3),
        ]
        image = service.list_images(session, dataset.key)[0]
        service.caption_image(session, image.key, "a fox")
        assert read_statistics(session, dataset).words[0] == CountedWord("boat", 1)
        empty = service.create_dataset(session, "Empty")
        assert read_statistics(session, empty).captioned == 0
