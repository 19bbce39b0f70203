"""Changes that bulk edits make to one caption."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.registry.datasets.captions import CaptionRefused
from app.registry.datasets.edits import find_replace
from app.registry.datasets.edits.actions import Edit, EditAction, check_edit, describe_edit
from app.registry.datasets.edits.differences import Part, differences
from app.registry.datasets.edits.plan import rule_of
from app.registry.errors import InvalidInput


def after(caption: str, action: EditAction, **settings: object) -> str:
    edit = check_edit(Edit(action, **settings))  # type: ignore[arg-type]
    return rule_of(edit)(caption)


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
    ({"find": r"\bfox", "replacement": "Fox"}, "A Fox and a Foxglove (Fox)"),
    ({"find": r"fox\B", "replacement": "wolf"}, "A Fox and a wolfglove (fox)"),
    ({"find": "FOX", "match_case": True}, "A Fox and a foxglove (fox)"),
    ({"find": "(?i)FOX", "match_case": True}, "A wolf and a wolfglove (wolf)"),
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
        ({"find": "(a)", "replacement": r"\2"}, "replacement", "The pattern has no group 2."),
        ({"find": "(a)", "replacement": r"\g<b>"}, "replacement", "The pattern has no group b."),
        ({"find": "(a)", "replacement": "\\"}, "replacement", r"Write \\ in the replacement"),
        ({"find": "(a)", "replacement": r"\q"}, "replacement", r"Write \\ in the replacement"),
        ({"find": "fox(?= in)"}, "find", "Match the text around it too, in a group"),
        ({"find": "(?<!a) fox"}, "find", "Match the text around it too, in a group"),
        ({"find": r"(\w+) \1"}, "find", "Write out what it can repeat"),
        ({"find": "(?P<w>a)(?P=w)"}, "find", "Write out what it can repeat"),
        ({"find": "a{1001}"}, "find", "at most 1,000"),
        ({"find": r"\w{1000}"}, "find", "Use lower numbers of repeats"),
        ({"find": "(?R)"}, "find", "invalid perl operator: (?R"),
        ({"find": "a++"}, "find", "bad repetition operator: ++"),
        ({"find": "\udcff"}, "find", "not valid Unicode"),
    ],
)
def test_a_pattern_that_cannot_be_used_says_which_part_and_why(
    settings: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        after("a fox", EditAction.REPLACE, is_regex=True, **settings)
    assert words in refusal.value.fields[field]


REFUSED = [r"\w{1000}", "a{99999999}", "a{2500000}", "((a{1000}){1000}){1000}", "x" * 1_000_000]
SLOW_FOR_OTHERS = [
    "(a+)+$",
    "(a|aa)+$",
    "(.*)(.*)(.*)(.*)(.*)x$",
    "(?:a?){500}a{500}$",
    "(.?){900}x",
]
IN_LITTLE_MEMORY = """
import re, resource, sys
from app.registry.datasets.edits.actions import Edit, EditAction, check_edit
from app.registry.datasets.edits.plan import rule_of
from app.registry.errors import InvalidInput
kilobytes = int(re.search(r"VmSize:\\s*([0-9]+)", open("/proc/self/status").read())[1])
limit = (kilobytes + 100 * 1024) * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for find in eval(sys.stdin.read()):
    try:
        rule_of(check_edit(Edit(EditAction.REPLACE, find=find, is_regex=True)))("a" * 1_999 + "!")
        print("searched")
    except InvalidInput:
        print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads its size from /proc")
def test_patterns_that_break_other_engines_are_searched_or_refused_in_100_mib() -> None:
    child = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY],
        input=repr(REFUSED + SLOW_FOR_OTHERS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stderr == ""  # RE2 logs nothing either
    expected = ["refused"] * len(REFUSED) + ["searched"] * len(SLOW_FOR_OTHERS)
    assert child.stdout.split() == expected


@pytest.mark.parametrize(
    "settings",
    [{"find": "((((a?)b?)c?).?){250}z|.", "is_regex": True}, {"find": "a"}],
)
def test_the_time_of_all_searches_together_is_limited(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_replace, "CPU_SECONDS", 0.02)
    rule = rule_of(check_edit(Edit(EditAction.REPLACE, replacement="b", **settings)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"more than 0.02 seconds of CPU time. Simplify"):
        [rule("ab " * 600) for _ in range(1_000)]


@pytest.mark.parametrize(
    ("caption", "find", "replacement", "expected"),
    [
        ("café, grün", r"(\w+), (\w+)", r"\2, \1", "grün, café"),
        ("ein FLUẞ, ÉTÉ", "fluß|été", "x", "ein x, x"),
        ("Blüte 5 ٣", r"\d", "#", "Blüte # #"),
        ("Blüte 5 ٣", r"\D", "", "5٣"),
        ("a-b_é", r"\W", "+", "a+b_é"),
        ("a-b_é", r"[\W_]", "+", "a+b+é"),
        ("é [x] ü-w", r"[^]\w -]", "(", "é (x] ü-w"),
        ("é-ü ö", r"[[:punct:]\w]+", "x", "x x"),
        (r"a é \w", r"\Q\w\E", "b", "a é b"),
        ("éxé", "x*", "-", "-é--é-"),
        ("éxé", r"\Cx", "-", "-é"),
        ("fox", "|", "-", "-f-o-x-"),
        ("a fox", "(a)|(b)", r"[\1\2]\g<0>", "[a]a fox"),
        ("a fox", "fox", r"$1 \\ \. \n", r"a $1 \ ."),
        ("a fox", "(?P<été>f.x)", r"\g<été>é", "a foxé"),
    ],
)
def test_patterns_and_replacements_know_all_letters(
    caption: str, find: str, replacement: str, expected: str
) -> None:
    settings = {"find": find, "replacement": replacement, "is_regex": True}
    assert after(caption, EditAction.REPLACE, **settings) == expected


@pytest.mark.parametrize(
    ("caption", "find", "expected"),
    [
        ("fox fox foxes, fox", "fox", "owl owl foxes, owl"),
        ("été étés pété,été", "été", "owl étés pété,owl"),
        ("foxes", "fox|foxes", "owl"),
        ("(fox) 🦊fox🦊", r"\w+", "(owl) 🦊owl🦊"),
        ("ab é", "x*", "ab é"),
    ],
)
def test_whole_words_of_a_pattern_end_where_letters_do(
    caption: str, find: str, expected: str
) -> None:
    settings = {"find": find, "replacement": "owl", "is_regex": True, "whole_words": True}
    assert after(caption, EditAction.REPLACE, **settings) == expected


@pytest.mark.parametrize("find", [r"\bpfel", r"a\B", r"(\\|\bpfel)"])
def test_a_caption_whose_letters_a_border_does_not_see_is_refused(find: str) -> None:
    settings = {"find": find, "replacement": "", "is_regex": True}
    with pytest.raises(CaptionRefused, match="choose “Whole words”"):
        after("ein Äpfel", EditAction.REPLACE, **settings)
    assert after("ein Äpfel", EditAction.REPLACE, **settings | {"find": r"\\b"}) == "ein Äpfel"


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
