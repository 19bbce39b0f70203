"""Subjects that an evaluation asks for: everyday things that the dataset does not show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from worker.core.evaluation.errors import EvaluationError

WORD = re.compile(r"[^\W\d_]+")

EVERYDAY = (
    "cat", "castle", "apple", "bicycle", "tree", "boat", "frog", "cake", "house", "butterfly",
    "train", "mushroom", "horse", "airplane", "flower", "fish", "rocket", "carrot", "bear", "bus",
    "elephant", "strawberry", "snail", "mountain", "dog", "pizza", "cactus", "bird", "car",
    "orange", "cow", "hamburger", "banana", "giraffe", "bread", "ice cream", "egg", "football",
    "sun", "moon",
)  # fmt: skip
"""Nouns that people type, of many kinds; each is drawn by most bases and named by the eyes."""


def propose_subjects(captions: Sequence[str], count: int) -> list[str]:
    """As many subjects that no caption names. Raises EvaluationError if there are not so many."""
    named = {word.removesuffix("s") for text in captions for word in WORD.findall(text.lower())}
    free = [one for one in EVERYDAY if not named.intersection(one.removesuffix("s").split())]
    if len(free) < count:
        raise EvaluationError(
            f"The captions leave {len(free)} of {len(EVERYDAY)} subjects, and {count} are wanted. "
            "Write prompts of your own."
        )
    return free[:count]
