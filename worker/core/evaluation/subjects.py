"""What an evaluation draws: everyday things that the dataset does not show, and how many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from worker.core.evaluation.errors import EvaluationError

STEPS = 12
"""Denoising steps: twenty give the same numbers on the embedded base, at 1.6 times the cost."""

MOST_CAPTIONS = 24
"""Captions of trained images, and of held-out ones, that each candidate draws to find copies."""

MOST_PLAIN = 8
"""Prompts without the trigger word that each candidate draws, to see if the style comes anyway."""

FEWEST_IMAGES = 8
"""Images of a dataset below which its style cannot be told from its subjects."""

T = TypeVar("T")
WORD = re.compile(r"[^\W\d_]+")
RELATION = re.compile(r"\b(?:at|by|from|in|of|on|under|with)\b")

EVERYDAY = (
    "cat", "castle", "apple", "bicycle", "tree", "boat", "frog", "cake", "house", "butterfly",
    "train", "mushroom", "horse", "airplane", "flower", "fish", "rocket", "carrot", "bear", "bus",
    "elephant", "strawberry", "snail", "mountain", "dog", "pizza", "cactus", "bird", "car",
    "orange", "cow", "hamburger", "banana", "giraffe", "bread", "ice cream", "egg", "football",
    "sun", "moon",
)  # fmt: skip
"""Nouns that people type, of many kinds; each is drawn by most bases and named by the eyes."""

MOST_SUBJECTS = len(EVERYDAY)
"""Of an evaluation, so that a grid holds them for the base and nine candidates."""


def propose_subjects(captions: Sequence[str], count: int) -> list[str]:
    """As many subjects that no caption names. Raises EvaluationError if there are not so many."""
    free = free_subjects(captions)
    if len(free) < count:
        raise EvaluationError(
            f"The captions leave {len(free)} of {len(EVERYDAY)} subjects, and {count} are wanted. "
            "Write prompts of your own."
        )
    return free[:count]


def free_subjects(captions: Sequence[str]) -> list[str]:
    """All everyday subjects that no caption names."""
    named = _words(captions)
    return [one for one in EVERYDAY if not named.intersection(one.removesuffix("s").split())]


def named_subjects(subjects: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Those of these subjects whose noun a caption has: of "a red fox in snow" the fox."""
    named = _words(captions)
    nouns = [WORD.findall(RELATION.split(one.lower())[0])[-1:] for one in subjects]
    return [
        one
        for one, noun in zip(subjects, nouns, strict=True)
        if named.intersection(word.removesuffix("s") for word in noun)
    ]


def _words(captions: Sequence[str]) -> set[str]:
    """All words of captions, without the s of a plural."""
    return {word.removesuffix("s") for text in captions for word in WORD.findall(text.lower())}


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly over the whole row, the last one among them."""
    kept = min(most, len(items))
    return [items[(place + 1) * len(items) // kept - 1] for place in range(kept)]
