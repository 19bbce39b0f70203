"""Words that a caption contains: one answer for filters, statistics, checks, edits and runs."""

from __future__ import annotations

import pytest

from app.registry.datasets import service
from app.registry.datasets.caption_words import contains_words
from app.registry.datasets.checks.findings import Check
from app.registry.datasets.checks.service import check_dataset
from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.plan import plan_edit
from app.registry.datasets.edits.selection import Selection
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.listing.image_search import matching_ids
from app.registry.datasets.listing.statistics import read_statistics
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database

CONTAINED = [
    ("Ink: a fox", "ink"),
    ("a fox in chalk style", "Chalk  Style"),
    ("a fox, chalk ... style", "chalk style"),
    ("a fox, Ink Wash", "ink wash"),
    ("a fox, ink-style", "ink"),  # a hyphen ends a word
    ("a fox, Ink-Wash", "ink-wash"),
    ("a fox, ink - wash", "ink-wash"),
    ("a fox <s1>", "<s1>"),
    ("狐狸水墨画", "水墨"),  # a script without spaces
    ("Über den Wolken", "über"),
    ("a fox, ***", "***"),
    ("a fox, 50%", "50%"),
]
NOT_CONTAINED = [
    ("a pink fox", "ink"),
    ("chalkboard, a fox", "chalk"),
    ("a fox, ink wash", "ink-wash"),  # and is looked for where it is written
    ("a fox, ink-wash", "ink wash"),
    ("a fox, ink_wash", "ink"),
    ("a fox", "***"),
    ("a fox, 500", "50%"),
]


@pytest.mark.parametrize(
    ("caption", "word", "is_there"),
    [*((*pair, True) for pair in CONTAINED), *((*pair, False) for pair in NOT_CONTAINED)],
)
def test_filter_check_edit_and_run_form_agree_about_the_trigger_word(
    database: Database, caption: str, word: str, is_there: bool
) -> None:
    assert contains_words(caption, word) is is_there
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink", trigger_word=word)
        new = NewImage("a.png", *("0" * 64,) * 3, 512, 512, 1, caption)
        service.add_images(session, dataset.key, [new])
        lacking = matching_ids(session, dataset, ImageFilter.from_query("show=no_trigger"))
        assert bool(lacking) is not is_there
        checks = {finding.check for finding in check_dataset(session, dataset).findings}
        assert (Check.TRIGGER_WORD in checks) is not is_there
        edit = Edit(EditAction.ADD_TRIGGER, word)
        plan = plan_edit(session, dataset, edit, Selection(all_matching=True))
        assert bool(plan.changes) is not is_there
        assert service.caption_has_word(session, dataset.key, word) is is_there


def test_a_filter_finds_as_many_captions_as_the_statistics_count(database: Database) -> None:
    captions = ("ink, fox", "ink-style, t-shirt", "a shirt", "水墨, fox", "水墨画", "t shirt, fox")
    with database.write() as session:
        dataset = service.create_dataset(session, "Ink")
        new = [
            NewImage(f"{n}.png", *(f"{n:064x}",) * 3, 512, 512, 1, caption)
            for n, caption in enumerate(captions)
        ]
        service.add_images(session, dataset.key, new)
        found = read_statistics(session, dataset)
        counted = {one.word: one.images for one in (*found.words, *found.tags)}
        assert (counted["ink"], counted["shirt"], counted["水墨"]) == (2, 3, 2)
        for word, count in counted.items():
            wanted = ImageFilter.parse([("with", word)])[0]
            assert len(matching_ids(session, dataset, wanted)) == count, word
