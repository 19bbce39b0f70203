"""Changes that bulk edits make to one caption."""

from __future__ import annotations

import time

import pytest

from app.registry.datasets.captions import CaptionRefused
from app.registry.datasets.edits import find_replace
from app.registry.datasets.edits.actions import Edit, EditAction, check_edit, describe_edit
from app.registry.datasets.edits.differences import Part, differences
from app.registry.datasets.edits.find_replace import TimeLimit
from app.registry.datasets.edits.plan import rule_of
from app.registry.errors import InvalidInput


def after(caption: str, action: EditAction, **settings: object) -> str:
    edit = check_edit(Edit(action, **settings))  # type: ignore[arg-type]
    return rule_of(edit, TimeLimit())(caption)


@pytest.mark.parametrize(
    ("caption", "settings", "expected"),
    [
        ("a fox", {}, "ink, a fox"),
        ("a fox", {"at_end": True}, "a fox, ink"),
        ("a fox,", {"at_end": True}, "a fox, ink"),
        ("", {}, "ink"),
        ("a fox, Ink", {}, "a fox, Ink"),
        ("a pink fox", {}, "ink, a pink fox"),
    ],
)
def test_a_trigger_word_is_added_where_it_is_not_yet(
    caption: str, settings: dict[str, object], expected: str
) -> None:
    assert after(caption, EditAction.ADD_TRIGGER, text="ink", **settings) == expected


def test_text_is_put_before_and_after_with_a_comma_or_a_space() -> None:
    assert after("a fox", EditAction.PREPEND, text="photo of", with_space=True) == "photo of a fox"
    assert after("a fox", EditAction.PREPEND, text="photo") == "photo, a fox"
    assert after("a fox", EditAction.APPEND, text="at night", with_space=True) == "a fox at night"
    assert after("", EditAction.APPEND, text="at night") == "at night"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a fox, chalk drawing", "a fox"),
        ("Chalk Drawing, a fox,chalk drawing", "a fox"),
        ("a chalk drawing of a fox", "a chalk drawing of a fox"),
        ("a fox , night", "a fox , night"),
    ],
)
def test_a_tag_is_removed_where_commas_separate_it(caption: str, expected: str) -> None:
    assert after(caption, EditAction.REMOVE_TAG, text="chalk drawing") == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a fox, chalk drawing, night", "a fox, night"),
        ("a chalk  drawing of a fox", "a fox"),
        ("chalk drawings", "chalk drawings"),
        ("chalk drawing", ""),
        ("a drawing, in chalk", ""),
    ],
)
def test_words_are_removed_with_their_loose_commas(caption: str, expected: str) -> None:
    words = "in chalk, chalk drawing, drawing"
    assert after(caption, EditAction.REMOVE_WORDS, text=words) == expected


PLAIN: list[tuple[dict[str, object], str]] = [
    ({}, "A wolf and a wolfglove (wolf)"),
    ({"find": "Fox", "match_case": True}, "A wolf and a foxglove (fox)"),
    ({"whole_words": True}, "A wolf and a foxglove (wolf)"),
    ({"find": "(fox)", "replacement": r"\1"}, r"A Fox and a foxglove \1"),
]
REGEX: list[tuple[dict[str, object], str]] = [
    ({"find": r"(\w+)glove", "replacement": r"\1 glove"}, "A Fox and a fox glove (fox)"),
    ({"find": r"\((?<w>.*)\)", "replacement": r"[\g<w>]"}, "A Fox and a foxglove [fox]"),
    ({"find": "f.x", "replacement": "", "whole_words": True}, "A and a foxglove ()"),
]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [*PLAIN, *((settings | {"is_regex": True}, expected) for settings, expected in REGEX)],
)
def test_text_is_found_and_replaced(settings: dict[str, object], expected: str) -> None:
    settings = {"find": "fox", "replacement": "wolf"} | settings
    assert after("A Fox and a foxglove (fox)", EditAction.REPLACE, **settings) == expected


@pytest.mark.parametrize("is_regex", [False, True])
@pytest.mark.parametrize(
    ("caption", "find", "replacement", "expected"),
    [
        ("a fox, ink, snow", "ink", "", "a fox, snow"),
        ("a fox, ink", "ink", "", "a fox"),
        ("ink,a fox,snow", "ink", "", "a fox, snow"),
        ("a fox,snow", "fox", "owl", "a owl,snow"),
        ("a fox,, snow", "fox", "owl", "a owl,, snow"),  # it was there before
        ("a fox", "fox", "fox,", "a fox,"),  # it was asked for
    ],
)
def test_commas_that_a_replacement_leaves_loose_go(
    caption: str, find: str, replacement: str, expected: str, is_regex: bool
) -> None:
    settings = {"find": find, "replacement": replacement, "is_regex": is_regex}
    assert after(caption, EditAction.REPLACE, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"find": ""}, "find", "Enter the text to find"),
        ({"find": "(a"}, "find", "invalid: missing )"),
        ({"find": "(" * 2_000}, "find", "at most 500 characters"),
        ({"find": "(a)", "replacement": r"\2"}, "replacement", "invalid group reference"),
        ({"find": "(a)", "replacement": r"\g<b>"}, "replacement", "unknown group"),
        ({"find": "(a)", "replacement": "\\"}, "replacement", "bad escape"),
    ],
)
def test_a_pattern_that_cannot_be_used_says_which_part_and_why(
    settings: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        after("a fox", EditAction.REPLACE, is_regex=True, **settings)
    assert words in refusal.value.fields[field]


def test_a_pattern_that_never_ends_is_given_up_for_all_captions_together() -> None:
    rule = rule_of(Edit(EditAction.REPLACE, find="(a+)+$", is_regex=True), TimeLimit(0.05))
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"longer than 0.05 seconds. Simplify it"):
            rule("a" * 1_000 + "!")


def test_a_caption_takes_only_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package counts CPU time: on a busy machine, a second of it can be many."""
    monkeypatch.setattr(find_replace, "CAPTION_LIMIT_SECONDS", 0.05)
    rule = rule_of(Edit(EditAction.REPLACE, find="(a+)+$", is_regex=True), TimeLimit(1_000))
    with pytest.raises(InvalidInput, match=r"longer than 0.05 seconds for one caption. Simplify"):
        rule("a" * 1_000 + "!")


def test_the_clock_is_read_between_captions() -> None:
    limit = TimeLimit(1_000)
    rule = rule_of(Edit(EditAction.REPLACE, find="a", replacement="b", is_regex=True), limit)
    assert rule("a") == "b"
    limit.end = time.monotonic()
    with pytest.raises(InvalidInput, match=r"longer than 1000 seconds. Simplify"):
        rule("a")


def test_a_pattern_that_contains_itself_is_given_up() -> None:
    with pytest.raises(InvalidInput, match=r"it never ends|takes longer than"):
        after("a fox", EditAction.REPLACE, find="(?R)", is_regex=True)


def test_a_caption_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(CaptionRefused, match="at most 2,000"):
        after("a" * 1_999, EditAction.REPLACE, find="a", replacement="bb")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (Edit(EditAction.ADD_TRIGGER, " "), "text"),
        (Edit(EditAction.REMOVE_TAG, "a, b"), "text"),
        (Edit(EditAction.WRITE, "a" * 2_001), "text"),
        (Edit(EditAction.REPEATS, repeats=0), "repeats"),
        (Edit(EditAction.MOVE), "dataset_id"),
    ],
)
def test_an_edit_without_its_setting_is_refused(edit: Edit, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_edit(edit)
    assert list(refusal.value.fields) == [field]


def test_a_difference_marks_words_that_go_and_come() -> None:
    pieces = differences("a fox, chalk drawing", "ink, a fox")
    assert "".join(piece.text for piece in pieces if piece.part != Part.ADDED) == (
        "a fox, chalk drawing"
    )
    assert [(piece.text, piece.part) for piece in pieces] == [
        ("ink, ", Part.ADDED),
        ("a fox", Part.SAME),
        (", chalk drawing", Part.REMOVED),
    ]
    assert [piece.part for piece in differences("same", "same")] == [Part.SAME]


def test_a_difference_of_long_captions_is_shown_as_a_whole() -> None:
    pieces = differences("x " + "a b " * 200, "x " + "b c " * 200)
    assert [piece.part for piece in pieces] == [Part.SAME, Part.REMOVED, Part.ADDED, Part.SAME]


def test_every_action_has_a_sentence() -> None:
    sentences = {describe_edit(Edit(action, "ink"), 2, target="Chalk") for action in EditAction}
    assert "Added “ink” to 2 captions" in sentences
    assert "Moved 2 images to “Chalk”" in sentences
