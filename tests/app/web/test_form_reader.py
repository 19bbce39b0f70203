"""Forms are read field by field, with one sentence for each kind of error."""

from __future__ import annotations

from enum import StrEnum

import pytest

from app.registry.errors import InvalidInput, NotFound
from app.web.form_reader import FormReader, parse_number, split_lines, split_words


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


def test_texts_lose_space_around_them_and_the_line_ends_of_browsers() -> None:
    form = FormReader({"notes": " one\r\ntwo ", "name": "  a \n b "})
    assert form.text("notes") == "one\ntwo"
    assert form.name("name", most=10) == "a b"
    assert form.text("absent", "usual") == "usual"
    assert "notes" in form
    assert "absent" not in form


def test_numbers_take_a_point_or_a_comma() -> None:
    form = FormReader({"weight": "0,5", "rank": "-12", "empty": ""})
    assert form.number("weight", 1.0) == 0.5
    assert form.number("absent", 1.0) == 1.0
    assert form.number("empty", None) is None
    assert form.whole("rank", None) == -12
    assert form.whole("empty", 7) == 7
    form.check()


@pytest.mark.parametrize("text", ["much", "nan", "inf", "1e999", "--1", "1_0", ""])
def test_what_is_no_number_is_an_error(text: str) -> None:
    form = FormReader({"weight": text})
    assert form.number("weight", 1.0) == 1.0
    assert form.errors == {"weight": "Enter a number."}
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["1.5", "--5", "1234567890", "٣"])
def test_what_is_no_whole_number_is_an_error(text: str) -> None:
    form = FormReader({"rank": text})
    assert form.whole("rank", None) is None
    assert form.errors == {"rank": "Enter a whole number."}


def test_a_choice_is_one_of_the_list() -> None:
    form = FormReader({"color": "blue", "other": "green"})
    assert form.choice("color", Color) is Color.BLUE
    assert form.choice("other", Color, "red") is Color.RED
    assert not form.errors
    assert form.choice("other", Color) is Color.RED
    assert form.errors == {"other": "This is not one of the choices. Choose one from the list."}


def test_a_flag_is_on_when_it_was_sent() -> None:
    form = FormReader({"dynamic": "on"})
    assert (form.flag("dynamic"), form.flag("absent")) == (True, False)


def test_all_errors_are_raised_together() -> None:
    form = FormReader({"name": "x" * 1_200, "rank": "eight", "word": " "})
    form.text("name", most=1_000)
    form.whole("rank", None)
    form.name("word", most=5, empty="Enter a word.")
    form.refuse("rank", "The first error of a field stays.")
    with form.collect("adapter"):
        raise NotFound("There is no adapter.")
    with form.collect("adapter"):
        raise InvalidInput("Too heavy.", fields={"weight": "Too heavy."})
    with pytest.raises(InvalidInput) as refused:
        form.check()
    assert refused.value.fields == {
        "name": "This has 1,200 characters; use at most 1,000.",
        "rank": "Enter a whole number.",
        "word": "Enter a word.",
        "adapter": "There is no adapter.",
        "weight": "Too heavy.",
    }


def test_lists_leave_out_what_is_empty() -> None:
    assert split_lines(" a cat \n\n a fox") == ["a cat", "a fox"]
    assert split_words("ink, chalk\nink, ,") == ["ink", "chalk"]
