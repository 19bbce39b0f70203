"""The filters of images: as an address, and as what they find on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from app.registry.datasets import service
from app.registry.datasets.caption_words import (
    SEPARATORS,
    contains_words,
    normalize_parts,
    normalize_words,
)
from app.registry.datasets.caption_writes import CaptionOrigin
from app.registry.datasets.checks.service import check_dataset
from app.registry.datasets.filters import ALL_IMAGES, MAX_WORDS, ImageFilter, Show, Sort
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    change_caption,
    remove_caption,
)
from app.registry.datasets.listing import image_search
from app.registry.datasets.listing.image_search import count_filters, matching_ids
from app.registry.datasets.listing.statistics import read_statistics
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database, Session
from app.registry.images.pixels import mirrored_hash
from app.registry.tables.datasets import (
    CaptionRevision,
    CaptionSource,
    Dataset,
    Image,
    ImageMeasure,
)
from app.web.datasets.listing_view import read_filter_bar
from worker.core.captioning.file_names import TITLE as FILE_NAMES
from worker.core.words import CaptionKind

HASHES = (0xFF << 20, 0b111, 0b11, 0xFFF << 40, 0b11)  # the last one is set aside
MIRRORED_FIRST = mirrored_hash(HASHES[0]) ^ 0b11_1111_1111
CAPTIONS = (
    "a fox, ink",
    "A FOX, ink",
    "a pink boat",  # "ink" is only a part of a word
    "",
    " ".join(["word"] * 76),
    "Über den Wolken; ink",
)


def test_a_filter_survives_its_address() -> None:
    wanted = ImageFilter(
        show=frozenset({Show.SMALL, Show.UNCAPTIONED}),
        with_words=("a fox", "über"),
        without_words=("50%",),
        q="&=?",
        sort=Sort.SIMILAR,
    )
    assert wanted.query.startswith("show=uncaptioned&show=small&with=a+fox")
    assert ImageFilter.from_query(wanted.query) == wanted
    assert ALL_IMAGES.query == ""
    assert ALL_IMAGES.is_all
    assert ImageFilter.from_query("") == ALL_IMAGES


def test_chips_and_words_change_a_filter() -> None:
    small = ALL_IMAGES.toggled(Show.SMALL)
    assert (small.query, small.toggled(Show.SMALL)) == ("show=small", ALL_IMAGES)
    foxes = small.with_word("A Fox")
    assert foxes.query == "show=small&with=a+fox"
    assert foxes.without_word("a fox").query == "show=small&without=a+fox"
    assert foxes.without_word("a fox").word_removed("a fox") == small


@pytest.mark.parametrize(
    ("pairs", "query", "problem"),
    [
        ([("show", "all"), ("sort", ""), ("q", "  ")], "", None),
        ([("show", "pretty")], "", "There is no filter “pretty”. Use uncaptioned, no_trigger,"),
        ([("sort", "x" * 10**6)], "", "There is no order “xxx"),
        ([("q", "q" * 10**6)], f"q={'q' * 200}", "Only the first 200 characters"),
        ([("with", "  , ; ")], "", None),
        ([("with", "w" * 10**6)], f"with={'w' * 100}", None),
        ([("page", "7"), ("shade", "x")], "", None),
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_with_the_reason(
    pairs: list[tuple[str, str]], query: str, problem: str | None
) -> None:
    found, problems = ImageFilter.parse(pairs)
    assert found.query == query
    assert len(problems) == (problem is not None)
    if problem:
        (sentence,) = problems
        assert sentence.startswith(problem)
        assert len(sentence) < 250


def test_two_hundred_words_are_cut_to_those_that_can_be_combined() -> None:
    found, problems = ImageFilter.parse([("with", f"word{number}") for number in range(200)])
    assert len(found.with_words) == MAX_WORDS
    assert list(problems) == ["At most 20 words can be combined; the others are ignored."]


@pytest.fixture
def ink(database: Database) -> Dataset:
    """Images with these captions; each is a size and sharpness of its own, the last unmeasured."""
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink", trigger_word="ink")
        new = [
            NewImage(
                f"{9 - n}.png", *(f"{n:064x}",) * 3, 512 * (1 + 3 * (n == 2)), 512 - n, 1, text
            )
            for n, text in enumerate(CAPTIONS)
        ]
        added = service.add_images(session, dataset.key, new)
        for n, row in enumerate(added[:-1]):
            measure = ImageMeasure(
                clean_sha256=row.image.clean_sha256,
                measure_version=1,
                sharpness=n / 10,
                has_transparency=n == 3,
                perceptual_hash=f"{HASHES[n]:016x}",
            )
            session.add(measure)
        added[4].image.set_aside = True
        session.add(added[4].image)
    return dataset


def found(session: Session, dataset: Dataset, query: str) -> list[int]:
    """The places of the images that match, 0 for the first one uploaded."""
    first = min(matching_ids(session, dataset))
    return [key - first for key in matching_ids(session, dataset, ImageFilter.from_query(query))]


FOUND = [
    ("", [0, 1, 2, 3, 4, 5]),
    ("show=uncaptioned", [3]),
    ("show=no_trigger", [2, 3, 4]),
    ("show=no_trigger&show=set_aside", [4]),
    ("show=long", [4]),
    ("show=same_caption", [0, 1]),
    ("show=small", [1, 2, 3, 4, 5]),
    ("show=blurry", [0, 1, 2, 3]),
    ("show=elongated", [2]),
    ("show=transparent", [3]),
    ("show=unmeasured", [5]),
    ("show=provider", []),
    ("show=near_duplicate", [1, 2]),
    ("show=near_duplicate&show=no_trigger", [2]),
    ("with=A+fox", [0, 1]),
    ("with=fox&with=ink", [0, 1]),
    ("with=fox+ink", [0, 1]),  # a separator counts as a space
    ("with=ink&without=fox", [5]),
    ("with=über&with=WOLKEN", [5]),
    ("with=%25", []),
    ("q=ink", [0, 1, 2, 5]),
    ("q=7.png", [2]),
    ("sort=newest", [5, 4, 3, 2, 1, 0]),
    ("sort=name", [5, 4, 3, 2, 1, 0]),
    ("sort=largest", [2, 0, 1, 3, 4, 5]),
    ("sort=smallest", [5, 4, 3, 1, 0, 2]),
    ("sort=sharpest", [4, 3, 2, 1, 0, 5]),
    ("sort=blurriest", [0, 1, 2, 3, 4, 5]),
    ("sort=similar", [0, 2, 4, 1, 3, 5]),
    ("sort=similar&show=small", [2, 4, 1, 3, 5]),
]


def test_filters_find_their_images(database: Database, ink: Dataset) -> None:
    with database.read() as session:
        for query, places in FOUND:
            assert found(session, ink, query) == places, query


def test_filters_are_counted_in_one_query(database: Database, ink: Dataset) -> None:
    with database.read() as session:
        counted, total = count_filters(session, ink)
        for kind, count in counted.items():
            assert len(found(session, ink, f"show={kind.value}")) == count, kind
        assert (set(counted), total) == (set(Show), 6)
    with database.write() as session:
        empty = service.create_dataset(session, "Empty")
        assert set(count_filters(session, empty)[0].values()) == {0}


def test_counts_of_many_images_are_put_off_after_a_change(
    database: Database, ink: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*, now: bool = False) -> dict[Show, int | None]:
        bar = read_filter_bar(session, ink, ALL_IMAGES, now=now)
        assert bar.is_complete == all(chip.count is not None for chip in bar.chips)
        return {chip.kind: chip.count for chip in bar.chips}

    monkeypatch.setattr(image_search, "FEW", 0)
    with database.write() as session:
        assert set(shown().values()) == {None}
        counted = shown(now=True)
        assert shown() == counted
        assert counted[Show.UNCAPTIONED] == 1
        service.caption_image(session, matching_ids(session, ink)[3], "it has one now")
        kept = {Show.NEAR_DUPLICATE: counted[Show.NEAR_DUPLICATE]}  # of pixels, not of captions
        assert shown() == dict.fromkeys(counted) | kept
        assert shown(now=True) == counted | {Show.UNCAPTIONED: 0, Show.NO_TRIGGER: 3}


def test_counts_follow_the_trigger_word_and_what_is_set_aside(
    database: Database, ink: Dataset
) -> None:
    def count(kind: Show) -> int:
        return count_filters(session, ink)[0][kind]

    with database.write() as session:
        assert (count(Show.NO_TRIGGER), count(Show.SET_ASIDE)) == (3, 1)
        ink.trigger_word = "fox"
        session.add(ink)
        assert count(Show.NO_TRIGGER) == 4
        assert found(session, ink, "show=near_duplicate") == [1, 2]
        keys = matching_ids(session, ink)
        # the sum of their places is that of the image before, 4
        for place, aside in ((4, False), (1, True), (3, True)):
            service.change_image(session, keys[place], set_aside=aside)
        assert count(Show.SET_ASIDE) == 2
        assert found(session, ink, "show=near_duplicate") == [2, 4]


def test_mirrored_copies_are_near_duplicates(database: Database, ink: Dataset) -> None:
    with database.write() as session:
        last = session.get_one(Image, matching_ids(session, ink)[5])
        measure = ImageMeasure(
            clean_sha256=last.clean_sha256,
            measure_version=1,
            sharpness=0.5,
            perceptual_hash=f"{MIRRORED_FIRST:016x}",
        )
        session.add(measure)
        session.flush()
        assert found(session, ink, "show=near_duplicate") == [0, 1, 2, 5]


def test_a_snapshot_reads_what_a_dataset_depends_on_once(database: Database, ink: Dataset) -> None:
    wanted = ImageFilter.from_query("show=near_duplicate&sort=similar")
    statements: list[str] = []

    def note(*sent: object) -> None:
        statements.append(str(sent[2]))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    with database.snapshot() as session:
        matching_ids(session, ink, wanted)
        count_filters(session, ink)
        check_dataset(session, ink)
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert sum("caption_share" in one and "sum(" in one.lower() for one in statements) == 1
    of_runs = [one for one in statements if "base_model" in one]
    assert len(of_runs) == len(set(of_runs)) > 0


def test_the_state_of_a_dataset_is_read_from_indexes(database: Database, ink: Dataset) -> None:
    """Otherwise each page would read every row of its images."""
    statements: list[tuple[str, object]] = []

    def note(*sent: object) -> None:
        statements.append((str(sent[2]), sent[3]))

    with database.read() as session:
        connection = session.connection()
        if not database.is_sqlite:
            for scan in ("seqscan", "indexscan", "bitmapscan"):  # cheaper for six rows
                connection.exec_driver_sql(f"SET LOCAL enable_{scan} = off")
            # until this transaction ends: a whole scan of them costs as much within one percent
            connection.exec_driver_sql(
                "DROP INDEX ix_image_clean_sha256, ix_image_thumbnail_sha256"
            )
        sa.event.listen(database.engine, "before_cursor_execute", note)
        image_search.read_state(session, ink)
        sa.event.remove(database.engine, "before_cursor_execute", note)
        ((statement, values),) = [one for one in statements if "caption_share" in one[0]]
        words = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{words} {statement}", values)
        plan = "\n".join(str(row[-1]) for row in rows)
    for index in ("ix_image_state", "ix_image_measure_state"):
        assert ("COVERING INDEX" if database.is_sqlite else "Index Only Scan using") in plan
        assert index in plan, plan


SURROUNDED = [f"a{sign}night sky{sign}b" for sign in SEPARATORS.strip()] + [
    *("night sky", "Night Sky", "a night, sky", "night sky, a", "sky night", "a night skyline"),
    *("midnight sky", "a night(sky)", "night-sky", "“night sky”", "the night ... sky", "50% night"),
    *("night", "sky, night; sky", "é night sky é", ""),
]


@pytest.mark.parametrize("words", ["night sky", "night", "sky", "50%", "é", "É NIGHT", "night-sky"])
def test_words_are_found_whole_whatever_stands_around_them(database: Database, words: str) -> None:
    with database.write() as session:
        dataset = service.create_dataset(session, "Words")
        new = [
            NewImage(f"{n}.png", *(f"{n:064x}",) * 3, 64, 64, 1, text)
            for n, text in enumerate(SURROUNDED)
        ]
        service.add_images(session, dataset.key, new)
        images = service.list_images(session, dataset.key)
        wanted = ImageFilter(with_words=(words,))
        expected = [image.caption for image in images if contains_words(image.caption, words)]
        keys = matching_ids(session, dataset, wanted)
        assert [image.caption for image in images if image.key in keys] == expected
        others = matching_ids(session, dataset, ImageFilter(without_words=(words,)))
        assert sorted([*keys, *others]) == matching_ids(session, dataset)


@pytest.mark.parametrize("text", [*SURROUNDED, " , Red  FOX,, (two) b.,  ", "İ, ΣΑΣ, x"])
def test_the_parts_between_commas_are_normalized_like_words(text: str) -> None:
    parts = [normalize_words(part) for part in text.split(",")]
    assert normalize_parts(text) == [part for part in parts if part]
    assert " ".join(normalize_parts(text)) == normalize_words(text)


def test_a_caption_counts_as_the_provider_s_until_somebody_changes_it(
    database: Database, ink: Dataset
) -> None:
    with database.write() as session:
        key = matching_ids(session, ink)[0]
        image = session.get(Image, key)
        assert image is not None
        revision = CaptionRevision(
            image_id=key,
            version=image.caption_version + 1,
            caption="a model wrote this",
            source=CaptionSource.PROVIDER,
        )
        image.caption_version += 1
        session.add_all([image, revision])
        session.flush()
        assert found(session, ink, "show=provider") == [0]
        revision.source_name = FILE_NAMES
        session.flush()
        assert found(session, ink, "show=provider") == []
        service.caption_image(session, key, "written by hand")
        assert found(session, ink, "show=provider") == []


def test_filters_and_figures_are_about_all_captions_of_an_image(
    database: Database, ink: Dataset
) -> None:
    long = " ".join(["word"] * 76)
    added = [
        (0, CaptionKind.SHORT, "a crow"),  # lacks the trigger word
        (1, CaptionKind.TAGS, "crow, ink"),
        (3, CaptionKind.TAGS, "ink, a fox in the rain"),  # its first caption is empty
        (5, CaptionKind.SHORT, f"ink, {long}"),
        (5, CaptionKind.TAGS, "A CROW"),
    ]
    with database.write() as session:
        ids = matching_ids(session, ink)
        assert count_filters(session, ink)[0][Show.LONG] == 1
        for place, kind, text in added:
            origin = CaptionOrigin(CaptionSource.PROVIDER if place == 1 else CaptionSource.HAND)
            change_caption(session, ids[place], kind, CaptionChange(text), origin=origin)
        expected = [
            ("show=uncaptioned", []),
            ("show=no_trigger", [0, 2, 4, 5]),
            ("show=long", [4, 5]),
            ("show=same_caption", [0, 1, 4, 5]),  # what is long is there twice
            ("show=provider", [1]),
            ("with=crow", [0, 1, 5]),
            ("with=fox&with=ink", [0, 1, 3]),
            ("with=ink+crow", []),  # no phrase goes from one caption to another
            ("without=crow", [2, 3, 4]),
            ("q=in+the+rain", [3]),
        ]
        for query, places in expected:
            assert found(session, ink, query) == places, query
        counts, _ = count_filters(session, ink)
        assert {kind: counts[kind] for kind in (Show.UNCAPTIONED, Show.LONG, Show.PROVIDER)} == {
            Show.UNCAPTIONED: 0,
            Show.LONG: 2,
            Show.PROVIDER: 1,
        }
        figures = read_statistics(session, ink)
        assert figures.captioned == service.summary(session, ink).captioned_count == 6
        assert {one.word: one.images for one in figures.words}["crow"] == 3
        assert service.caption_has_word(session, ink.key, "ink")


SAME = [
    ["A fox.", "a  fox", "Ink, a fox", "a fox, in ink style"],  # but for what is no content
    ["close-up, Éclair", "close up éclair"],
]
ALONE = ["a fox, an owl", "foxes", "ink", "Ink.", "", "🦊", "🐻"]


def test_the_filter_and_the_check_agree_on_what_the_same_caption_is(database: Database) -> None:
    captions = [*SAME[0], *ALONE, *SAME[1]]
    with database.write() as session:
        dataset = service.create_dataset(session, "Same", trigger_word="ink")
        new = [
            NewImage(f"{n}.png", *(f"{n:064x}",) * 3, 512, 512, 1, text)
            for n, text in enumerate(captions)
        ]
        service.add_images(session, dataset.key, new)
        first = matching_ids(session, dataset)[0]
        expected = [captions.index(text) for group in SAME for text in group]
        assert found(session, dataset, "show=same_caption") == expected
        piles = [one.piles for one in check_dataset(session, dataset).findings if one.piles]
        assert [[captions[key - first] for key in pile] for pile in piles[0]] == SAME
        dataset.trigger_word = None
        session.add(dataset)
        assert found(session, dataset, "show=same_caption") == [
            captions.index(text) for text in ["A fox.", "a  fox", "ink", "Ink.", *SAME[1]]
        ]


def test_a_changed_further_caption_changes_figures_and_filters(
    database: Database, ink: Dataset
) -> None:
    with database.write() as session:
        key = matching_ids(session, ink)[0]
        for text, is_long in (("a crow", False), ("rain " * 80, True), ("a crow", False)):
            change_caption(session, key, CaptionKind.SHORT, CaptionChange(text))
            assert (found(session, ink, "show=long") == [0, 4]) is is_long
            words = {one.word for one in read_statistics(session, ink).words}
            assert ("rain" in words) is is_long
        remove_caption(session, key, CaptionKind.SHORT)
        assert "crow" not in {one.word for one in read_statistics(session, ink).words}


def test_a_run_whose_trigger_word_is_in_a_further_caption_has_no_warning(
    database: Database,
) -> None:
    with database.write() as session:
        dataset = service.create_dataset(session, "Chalk", trigger_word="chalk")
        new = NewImage("a.png", *("0" * 64,) * 3, 512, 512, 1, "a fox")
        (added,) = service.add_images(session, dataset.key, [new])
        assert not service.caption_has_word(session, dataset.key, "chalk")
        change_caption(session, added.image.key, CaptionKind.TAGS, CaptionChange("fox, chalk"))
        assert service.caption_has_word(session, dataset.key, "chalk")
