"""Sentences for values that pydantic refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def named_reasons(fields: Mapping[str, str]) -> str:
    """All that is wrong as one text, each sentence behind the name of its field."""
    return " ".join(f"{field}: {reason}" for field, reason in fields.items())[:2000]


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value that pydantic refused, as a sentence for people."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return "There is no setting of this name."
    if kind in ("int_parsing", "int_from_float", "int_type"):
        return "This has to be a whole number."
    if kind in ("float_parsing", "float_type", "finite_number"):
        return "This has to be a number."
    if kind in ("bool_parsing", "bool_type"):
        return "This has to be true or false."
    if kind == "string_type":
        return "This has to be a text."
    if kind == "value_error" and "UploadFile" in str(problem["msg"]):
        return "This has to be a file, not a text."
    if kind == "missing":
        return "This is missing."
    if kind == "string_too_long" and isinstance(problem["input"], str):
        return (
            f"This has {len(problem['input']):,} characters; at most {context['max_length']:,} fit."
        )
    if kind == "string_too_short":
        return "This cannot be empty."
    if kind == "too_long":
        return f"These are {context['actual_length']}; at most {context['max_length']} are drawn."
    if kind == "greater_than_equal":
        return f"This has to be at least {context['ge']:,}."
    if kind == "greater_than":
        return f"This has to be more than {context['gt']:,}."
    if kind in ("less_than_equal", "less_than"):
        return f"This can be {context.get('le', context.get('lt')):,} at most."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].upper() + message[1:].rstrip(".") + "."
