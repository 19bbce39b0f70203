"""Emphasis in prompts is read as A1111 writes it; what is no syntax stays as it was typed."""

from __future__ import annotations

from itertools import product

import pytest

from worker.core.inference.prompt_syntax import LIMITED, NOT_EDITED, is_simple, parse_prompt

Weights = list[tuple[str, float]]


def weights(prompt: str) -> Weights:
    (section,) = parse_prompt(prompt).sections
    return [(part.text, round(part.weight, 3)) for part in section]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a castle", [("a castle", 1)]),
        ("a (castle)", [("a ", 1), ("castle", 1.1)]),
        ("a ((castle)), ink", [("a ", 1), ("castle", 1.21), (", ink", 1)]),
        ("[a] castle", [("a", 0.909), (" castle", 1)]),
        ("(castle:1.3) ink", [("castle", 1.3), (" ink", 1)]),
        ("(castle : .5 )", [("castle", 0.5)]),
        ("(a (castle:2), ink:1.2)", [("a ", 1.2), ("castle", 2.4), (", ink", 1.2)]),
        ("([a castle])", [("a castle", 1)]),
        ("(castle:blue)", [("castle:blue", 1.1)]),
        (r"smile \(castle\) \[\\", [("smile (castle) [\\", 1)]),
        (r"a\b", [(r"a\b", 1)]),
        ("🍎 (🍏:1.5) 👩‍🚀", [("🍎 ", 1), ("🍏", 1.5), (" 👩‍🚀", 1)]),
        ("", [("", 1)]),
        ("()", [("", 1)]),
        ("a () [] (:1.2) b", [("a    b", 1)]),
    ],
)
def test_brackets_weight_the_words_inside(prompt: str, expected: Weights) -> None:
    assert weights(prompt) == expected
    assert parse_prompt(prompt).notes == ()


@pytest.mark.parametrize(
    "prompt", ["((castle", "castle)", "a :) b", "[castle", "castle ]", "(", ")("]
)
def test_a_lone_bracket_is_text_and_a_note_says_so(prompt: str) -> None:
    parsed = parse_prompt(prompt)
    assert parsed.plain == prompt
    assert "has no counterpart and was read as text" in " ".join(parsed.notes)


def test_a_lone_bracket_leaves_the_others_alone() -> None:
    assert weights("a (b, (castle:1.2)") == [("a (b, ", 1), ("castle", 1.2)]
    assert weights("(a) castle)") == [("a", 1.1), (" castle)", 1)]


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [("(a:9)", 3), ("(a:1e9)", 3), ("(a:-2)", 0), ("(" * 20 + "a" + ")" * 20, 3)],
)
def test_weights_have_bounds(prompt: str, weight: float) -> None:
    assert weights(prompt) == [("a", weight)]
    assert parse_prompt(prompt).notes == (LIMITED,)


@pytest.mark.parametrize("prompt", ["[cat:dog:0.5]", "a [cat|dog]"])
def test_editing_between_steps_is_said_to_be_text(prompt: str) -> None:
    assert parse_prompt(prompt).notes == (NOT_EDITED,)


def test_break_begins_a_section() -> None:
    parsed = parse_prompt("a castle BREAK (ink:1.2) BREAK")
    assert [[part.text for part in section] for section in parsed.sections] == [
        ["a castle"],
        ["ink"],
    ]
    assert parsed.text.split() == ["a", "castle", "ink"]
    assert weights("BREAKFAST") == [("BREAKFAST", 1)]


def test_any_brackets_can_be_read() -> None:
    for signs in product("()[]a:\\", repeat=5):
        parsed = parse_prompt("".join(signs))
        assert all(0 <= part.weight <= 3 for section in parsed.sections for part in section)


def test_only_short_prompts_without_syntax_are_simple() -> None:
    assert is_simple("a castle, ink drawing")
    assert is_simple("")
    assert not is_simple("a (castle)")
    assert not is_simple("a castle BREAK ink")
    assert not is_simple("apple " * 21)


LONG = 90_000


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (f"a{' ' * LONG}b", f"a{' ' * LONG}b"),
        (f"a{' ' * LONG}BREAK{' ' * LONG}b", "a b"),
        (f"(a{' ' * LONG})", f"a{' ' * LONG}"),
        (f"(a:{'1' * LONG}x)", f"a:{'1' * LONG}x"),
        (f"[{'|' * LONG}", f"[{'|' * LONG}"),
        (f"[a{':' * LONG}", f"[a{':' * LONG}"),
    ],
    ids=["spaces", "BREAK", "closed", "digits", "bars", "colons"],
)
def test_a_prompt_of_any_length_is_read_in_one_go(prompt: str, text: str) -> None:
    assert parse_prompt(prompt).text == text
