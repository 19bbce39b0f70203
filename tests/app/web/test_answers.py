"""Answers of the API show the fields that their class lists, and no others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from app.web.answers import Answer


@dataclass
class Row:
    name: str = "Ink"
    secret: str = "a column that came later"


class NameOut(Answer):
    name: str


class NameAndPlaceOut(NameOut):
    place: int


def test_a_new_column_never_appears_by_itself() -> None:
    assert NameOut.of(Row()).model_dump() == {"name": "Ink"}


def test_a_field_that_the_row_lacks_has_to_be_named() -> None:
    assert NameAndPlaceOut.of(Row(), place=2).model_dump() == {"name": "Ink", "place": 2}
    with pytest.raises(AttributeError, match="place"):
        NameAndPlaceOut.of(Row())


def test_each_field_is_that_of_the_first_row_that_has_it() -> None:
    @dataclass
    class Place:
        place: int = 3
        name: str = "the name of the place"

    shown = NameAndPlaceOut.of(Row(), Place())
    assert shown.model_dump() == {"name": "Ink", "place": 3}
