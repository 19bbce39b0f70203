"""Prompts with alternatives in braces: `a {red|blue} castle` is two prompts."""

from __future__ import annotations

import itertools
import math
import re

from app.registry.errors import InvalidInput
from app.registry.renders.grids.numbers import MAX_VALUES

MANY = 10_000_000  # a larger number says no more
CHOICE = re.compile(r"\{([^{}|]*\|[^{}]*)\}")  # linear, because prompts of any length come here


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
