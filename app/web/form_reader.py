"""Read a submitted form field by field: the errors are collected by field and raised together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from app.registry.db import MAX_ID
from app.registry.errors import AppError, InvalidInput
from app.registry.validation import NOT_A_CHOICE, NOT_A_NUMBER, NOT_AN_INTEGER, one_line, too_long

INTEGER = re.compile(r"-?\d{1,9}", re.ASCII)  # at most nine digits: each integer column holds them

Default = TypeVar("Default")
Choice = TypeVar("Choice", bound=StrEnum)


class FormReader:
    """The fields of a form as text, numbers, choices and lists; `errors` has a sentence by field.

    A field in error reads as its default, so read all fields first, then call `check`.
    """

    def __init__(self, sent: Mapping[str, Any]) -> None:
        self.texts = {
            name: str(value).replace("\r\n", "\n").strip() for name, value in sent.items()
        }
        self.errors: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def text(self, name: str, default: str = "", *, most: int | None = None) -> str:
        """The text, without space around it; an error when it is longer than `most`."""
        text = self.texts.get(name, default)
        if most is not None and len(text) > most:
            self.refuse(name, too_long(text, most))
        return text

    def name(self, name: str, *, most: int, empty: str | None = None) -> str:
        """The text on one line with single spaces; `empty` is the error when there is none."""
        self.texts[name] = one_line(self.text(name))
        if not self.texts[name] and empty:
            self.refuse(name, empty)
        return self.text(name, most=most)

    def whole(self, name: str, default: Default) -> int | Default:
        """The whole number; the default for an empty field."""
        text = self.text(name)
        if INTEGER.fullmatch(text):
            return int(text)
        if text:
            self.refuse(name, NOT_AN_INTEGER)
        return default

    def number(self, name: str, default: Default) -> float | Default:
        """The number, with a point or a comma; the default for a field that was not sent.

        An empty field is an error, unless the default is None.
        """
        text = self.texts.get(name)
        if text is None or (not text and default is None):
            return default
        number = parse_number(text)
        if number is None:
            self.refuse(name, NOT_A_NUMBER)
            return default
        return number

    def choice(self, name: str, choices: type[Choice], text: str | None = None) -> Choice:
        """The member of `choices` with the value of the field, or with `text`, a part of it."""
        try:
            return choices(self.text(name) if text is None else text)
        except ValueError:
            self.refuse(name, NOT_A_CHOICE)
            return next(iter(choices))

    def flag(self, name: str) -> bool:
        """True when the checkbox was on: browsers leave out those that are off."""
        return bool(self.text(name))

    def refuse(self, name: str, sentence: str) -> None:
        """Add an error; the first of a field stays."""
        self.errors.setdefault(name, sentence)

    @contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Add the errors of a service to those of the form; those without a field to `name`."""
        try:
            yield
        except AppError as error:
            for field, sentence in (error.fields or {name: error.detail}).items():
                self.refuse(field, sentence)

    def check(self) -> None:
        """Raise InvalidInput with all errors, if there are any."""
        if self.errors:
            raise InvalidInput(" ".join(dict.fromkeys(self.errors.values())), fields=self.errors)


def parse_number(text: str) -> float | None:
    """The finite number in this text, with a point or a comma; None when there is none."""
    try:
        number = float(text.replace(",", ".").replace("_", "?"))  # Python alone reads 1_0 as 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def split_lines(text: str) -> list[str]:
    """The lines that are not empty, without space around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def split_words(text: str) -> list[str]:
    """The words of a comma-separated list, in order and without duplicates."""
    words = (word.strip() for word in text.replace("\n", ",").split(","))
    return list(dict.fromkeys(word for word in words if word))


def as_id(text: str) -> int | None:
    """The id in this text; None when it is not a valid id."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    number = int(text)
    return number if 1 <= number <= MAX_ID else None
