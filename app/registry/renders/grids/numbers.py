"""Values of an axis as people write them.

Prompts with alternatives in braces: `a {red|blue} castle` is two prompts. Lists and ranges of
numbers: `0.25 to 1.25 by 0.25`, `1, 2, 5-9 (+2)`.
"""

from __future__ import annotations

import itertools
import math
import re
from decimal import Decimal

from app.registry.errors import InvalidInput

MAX_VALUES = 400
NUMBER = r"[-−+]?(?:\d{1,12}(?:[.,]\d{1,6})?|[.,]\d{1,6})"
ONE = re.compile(NUMBER, re.ASCII)
BY_STEP = re.compile(
    rf"(?P<first>{NUMBER})\s*(?:to|\.\.|…)\s*(?P<last>{NUMBER})(?:\s*(?:by|step)\s*(?P<step>{NUMBER}))?",
    re.ASCII | re.IGNORECASE,
)
AS_IN_A1111 = re.compile(
    rf"(?P<first>{NUMBER})\s*-\s*(?P<last>{NUMBER})(?:\s*\((?P<step>{NUMBER})\)|\s*\[(?P<count>\d{{1,6}})\])?",
    re.ASCII,
)
EXAMPLE = "Write a list, such as 0.5, 0.75, 1, or a range, such as 0.25 to 1.25 by 0.25."
MANY = 10_000_000  # a larger number says no more
CHOICE = re.compile(r"\{([^{}|]*\|[^{}]*)\}")  # linear, because prompts of any length come here


def split_list(text: str) -> list[str]:
    """The entries of a list: one a line, else between semicolons, else between commas."""
    sign = next((sign for sign in "\n;" if sign in text), ",")
    return [entry.strip() for entry in text.split(sign) if entry.strip()]


def read_numbers(text: str) -> list[Decimal]:
    """The numbers of a list whose entries may be ranges, which include both ends.

    In A1111's syntax `1-5` is a range, `0-1 (+0.25)` one by steps and `0-1 [5]` one of five
    numbers. Raises InvalidInput, also for more than `MAX_VALUES`.
    """
    found: list[Decimal] = []
    for entry in split_list(text):
        found += _read_entry(entry)
        _limit(len(found))
    return found


def _read_entry(entry: str) -> list[Decimal]:
    if ONE.fullmatch(entry):
        return [_number(entry)]
    match = BY_STEP.fullmatch(entry) or AS_IN_A1111.fullmatch(entry)
    if match is None:
        raise InvalidInput(f"“{entry[:40]}” is no number and no range. {EXAMPLE}")
    parts = match.groupdict()
    first, last = _number(parts["first"]), _number(parts["last"])
    if parts.get("count"):
        return _equal_distances(first, last, int(parts["count"]))
    step = abs(_number(parts["step"])) if parts["step"] else Decimal(1)
    if not step:
        raise InvalidInput(f"“{entry[:40]}” has a step of 0. {EXAMPLE}")
    count = int(abs(last - first) / step) + 1
    _limit(count)
    return [first + (step if last >= first else -step) * number for number in range(count)]


def _equal_distances(first: Decimal, last: Decimal, count: int) -> list[Decimal]:
    """So many numbers at equal distances, rounded to four decimals."""
    _limit(count)
    if count < 2:
        return [first] * count
    step = (last - first) / (count - 1)
    return [round(first + step * number, 4) for number in range(count)]


def _number(text: str) -> Decimal:
    return Decimal(text.replace("−", "-").replace(",", "."))


def _limit(count: int) -> None:
    if count > MAX_VALUES:
        raise InvalidInput(
            f"These are {count:,} values or more; a grid has at most {MAX_VALUES} "
            "images. Take a larger step or fewer values."
        )


def has_alternatives(prompt: str) -> bool:
    """True if braces with alternatives are in the prompt."""
    return CHOICE.search(prompt) is not None


def expand_alternatives(prompt: str) -> list[str]:
    """Every prompt that the alternatives allow, the last one changing first.

    Braces without a bar in them are text. Raises InvalidInput for more than `MAX_VALUES` prompts.
    """
    parts = CHOICE.split(prompt)  # text and alternatives in turn
    choices = [
        [word.strip() for word in part.split("|")] if place % 2 else [part]
        for place, part in enumerate(parts)
    ]
    count = math.prod(len(words) for words in choices)
    if count > MAX_VALUES:
        many = f"{count:,}" if count < MANY else f"more than {MANY:,}"
        raise InvalidInput(
            f"The alternatives in braces make {many} prompts; a grid has at most {MAX_VALUES} "
            "images."
        )
    return [" ".join("".join(words).split()) for words in itertools.product(*choices)]
