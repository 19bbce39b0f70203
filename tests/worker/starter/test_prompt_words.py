"""Words that the embedded base reads in a prompt: subjects, and words that it was never taught."""

from __future__ import annotations

import pytest

from worker.core.starter.prompt_words import (
    read_prompt,
    search_subjects,
    subject_for,
    with_subject,
)
from worker.core.starter.subjects import known_subjects


def names(text: str) -> list[str]:
    return [subject.name for subject in search_subjects(text)]


def test_the_words_of_the_captions_are_known() -> None:
    for subject in known_subjects():
        for text in (subject.name, *subject.plain_names):
            reading = read_prompt(f"a drawing of a {text}, noto style on a teal background")
            assert (reading.unknown, reading.has_subject) == ((), True), text


@pytest.mark.parametrize(
    ("prompt", "unknown", "similar"),
    [
        ("castle", (), ()),
        ("Castle, Zorblax style, zorblax", ("Zorblax",), ()),
        ("zwei <lora:zorblax:0.8> castles", ("zwei", "castles"), ("castle",)),
        ("elefant", ("elefant",), ("elephant",)),
        ("das Schloß am Meer", ("das", "Schloß", "am", "Meer"), ()),
        ("城堡", ("城堡",), ()),
        ("(castle:1.5), 4k!", (), ()),
        ("", (), ()),
    ],
)
def test_words_that_it_was_never_taught_are_named_as_typed(
    prompt: str, unknown: tuple[str, ...], similar: tuple[str, ...]
) -> None:
    reading = read_prompt(prompt)
    assert reading.unknown == unknown
    assert set(similar) <= set(reading.similar)


def test_what_an_adapter_was_taught_is_known() -> None:
    assert read_prompt("castle, zorblax style", taught=["Zorblax"]).unknown == ()


def test_a_prompt_of_known_words_can_be_without_a_subject() -> None:
    assert not read_prompt("blue animal").has_subject
    assert read_prompt("blue wave on the beach").has_subject


def test_a_long_prompt_is_read_up_to_its_limit() -> None:
    assert read_prompt("castle " * 199 + "zorblax").unknown == ("zorblax",)
    assert read_prompt("castle " * 300_000 + "zorblax").unknown == ()
    assert read_prompt("<" * 900_000).unknown == ()


@pytest.mark.parametrize(
    ("noun", "subject"),
    [("tree", "deciduous tree"), ("Castle", "castle"), ("hair drier", None), ("back", None)],
)
def test_a_noun_names_its_subject_and_a_keyword_does_not(noun: str, subject: str | None) -> None:
    found = subject_for(noun)
    assert (found and found.name) == subject


def test_a_search_finds_names_before_plain_names_before_keywords() -> None:
    found = names("tree")
    assert found[0] == "deciduous tree"  # it has the plain name
    assert found.index("palm tree") < len(found)
    assert names("animal")  # a keyword
    assert names("cas")[0] == "castle"
    assert names("tree palm")[0] == "palm tree"
    assert names("zorblax") == []
    assert len(names("")) == len(known_subjects())


@pytest.mark.parametrize(
    ("prompt", "changed"),
    [
        ("", "rocket"),
        ("castle", "rocket"),
        ("Castle, chalkboard style", "rocket, chalkboard style"),
        ("castle,", "rocket"),
        ("castle by the sea, chalkboard style", "rocket, castle by the sea, chalkboard style"),
        ("my words", "rocket, my words"),
    ],
)
def test_a_subject_takes_the_place_of_the_first_and_nothing_else_is_lost(
    prompt: str, changed: str
) -> None:
    assert with_subject(prompt, "rocket") == changed
