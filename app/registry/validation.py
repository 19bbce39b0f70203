"""Readable sentences for pydantic's validation errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.registry.errors import InvalidInput, NotFound

MAX_NAME = 120
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME)]
"""The name of a thing in a request."""
Fraction = Annotated[float, Field(ge=0, le=1)]

NOT_AN_INTEGER = "Enter a whole number."
TOO_LARGE = "This number is too large. Enter a smaller one."
NOT_A_NUMBER = "Enter a number."
NOT_A_CHOICE = "This is not one of the choices. Choose one from the list."


def too_long(text: str, most: int) -> str:
    """The sentence for a text of more than `most` characters."""
    return f"This has {len(text):,} characters; use at most {most:,}."


def printable(text: str) -> str:
    """The text without control characters, which cannot be stored."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def one_line(text: str) -> str:
    """The text as names are kept: on one line, single spaces, without control characters."""
    return " ".join(printable(text).split())


def checked_name(text: str, *, empty: str = "Enter a name.") -> str:
    """The name on one line. Raises InvalidInput if nothing is left of it, or too much."""
    line = one_line(text)
    sentence = too_long(line, MAX_NAME) if len(line) > MAX_NAME else "" if line else empty
    if sentence:
        raise InvalidInput(sentence, fields={"name": sentence})
    return line


def named_reasons(fields: Mapping[str, str]) -> str:
    """All field errors as one text, each prefixed with its field."""
    return " ".join(f"{field}: {reason}" for field, reason in fields.items())[:2000]


class Reasons:
    """Reasons by field, collected so that a person is told all of them at once."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}

    @contextmanager
    def noted(self, *, missing: str = "") -> Iterator[None]:
        """Collect those of InvalidInput, and of NotFound as the reason of the field `missing`."""
        try:
            yield
        except InvalidInput as error:
            self.fields |= error.fields
        except NotFound as error:
            if not missing:
                raise
            self.fields[missing] = error.detail

    def check(self) -> None:
        """Raise InvalidInput if there are any."""
        if self.fields:
            raise InvalidInput(named_reasons(self.fields), fields=self.fields)


def reason(problem: Mapping[str, Any]) -> str:
    """A readable sentence for a pydantic error."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "There is no setting with this name."
    if kind in ("int_parsing", "int_from_float", "int_type"):
        return NOT_AN_INTEGER
    if kind == "int_parsing_size":
        return TOO_LARGE
    if kind in ("float_parsing", "float_type", "finite_number"):
        return NOT_A_NUMBER
    if kind in ("bool_parsing", "bool_type"):
        return "Enter true or false."
    if kind == "string_type":
        return "This must be text."
    if kind == "value_error" and "UploadFile" in str(problem["msg"]):
        return "This must be a file, not text."
    if kind == "missing":
        return "This is required."
    if kind == "string_too_long" and isinstance(problem["input"], str):
        return too_long(problem["input"], context["max_length"])
    if kind == "string_too_short":
        return "This cannot be empty."
    if kind == "too_long":
        given, most = context["actual_length"], context["max_length"]
        return f"Too many entries: {given} given, at most {most} allowed."
    if kind == "too_short":
        given, least = context["actual_length"], context["min_length"]
        return f"Too few entries: {given} given, at least {least} needed."
    if kind == "greater_than_equal":
        return f"At least {_bound(context['ge'])}."
    if kind == "greater_than":
        return f"More than {_bound(context['gt'])}."
    if kind in ("less_than_equal", "less_than"):
        return f"{_bound(context.get('le', context.get('lt')))} at most."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].upper() + message[1:].rstrip(".") + "."


def _bound(value: Any) -> str:
    """A limit as people write it: 30, not 30.0."""
    return f"{int(value) if isinstance(value, float) and value.is_integer() else value:,}"
