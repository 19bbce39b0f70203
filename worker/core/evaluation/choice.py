"""Chooses the candidate to keep, and says why in a sentence.

Candidates without the style, ruined ones and those that copy are left out. Of the others, those
whose style cannot be told from the best one's count as equal; of these the better adherence decides
where its interval says so, else the most trained one that does not begin to remember its images:
`bench/verdict.py` found it the better one more often than the least trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.intervals import FEWEST, Interval, is_above, mean_interval
from worker.core.evaluation.measures import Memory
from worker.core.evaluation.style import StyleScore
from worker.core.wording import capitalized, join_words

COPIES = 0.5
"""`Memory.ratio` below which the dataset's captions give its images back."""

REMEMBERS = 0.7
"""`Memory.ratio` below which it begins to: one above is kept where they look equal."""

LOST = 0.1
"""Adherence below which, where its interval reaches 0, the prompts have no effect."""


@dataclass(frozen=True)
class Candidate:
    """What was measured of a candidate; candidates are in the order of training or weight.

    `adherence`: one value for each prompt, 1 as the base; None if it is not measured.
    `leak`: the style of prompts without the trigger word; `drift`: how far their images are from
    the base's, 1 as another subject; None if there is no trigger word. `inside`: the style of the
    subjects of the dataset, drawn from its captions; None if there are too few. `variety`: as
    `measures.variety` has it.
    """

    name: str
    style: StyleScore
    adherence: NDArray[np.floating] | None = None
    memory: Memory | None = None
    leak: float | None = None
    drift: float | None = None
    inside: float | None = None
    variety: float | None = None

    @property
    def style_interval(self) -> Interval:
        """The score with the interval of its mean over the prompts."""
        return mean_interval(self.style.parts)

    @property
    def mean_adherence(self) -> float | None:
        """The mean over the prompts; None if it is not measured."""
        return None if self.adherence is None else float(np.mean(self.adherence))

    @property
    def draws_the_same(self) -> bool:
        """True if the prompts have no effect that can be told from none."""
        if self.adherence is None:
            return False
        follows = mean_interval(self.adherence)
        return follows.low is not None and follows.low <= 0 and follows.mean < LOST

    @property
    def copy_ratio(self) -> float | None:
        """Its `Memory.ratio`; None if it is not measured."""
        return None if self.memory is None else self.memory.ratio

    @property
    def figures(self) -> dict[str, float | None]:
        """What is shown beside the style, by name; None: not measured."""
        return {
            "adherence": self.mean_adherence,
            "variety": self.variety,
            "copy_ratio": self.copy_ratio,
            "leak": self.leak,
            "drift": self.drift,
            "inside": self.inside,
        }


def recalls(ratio: float | None, limit: float = COPIES) -> bool:
    """True if a `Memory.ratio` was measured and is below a limit."""
    return ratio is not None and ratio < limit


@dataclass(frozen=True)
class Choice:
    """The recommended candidate; None if none is left.

    `equal`: the others that look equally close. `left_out`: why, by name.
    """

    name: str | None
    reason: str
    equal: tuple[str, ...]
    left_out: dict[str, str]


def choose(candidates: Sequence[Candidate]) -> Choice:
    """The recommendation. Raises EvaluationError without candidates or with under six prompts."""
    if not candidates:
        raise EvaluationError("There is nothing to compare. Give at least one candidate.")
    if len(candidates[0].style.parts) < FEWEST:
        raise EvaluationError(
            f"At least {FEWEST} prompts are needed to tell candidates apart. Use more."
        )
    left_out = _left_out(candidates)
    kept = [one for one in candidates if one.name not in left_out]
    if not kept:
        return Choice(
            None,
            "None is usable: each lacks the style, is ruined, or copies its images.",
            (),
            left_out,
        )
    best = max(kept, key=lambda one: one.style.score)
    others = len(kept) - 1
    near = [
        one for one in kept if not is_above(best.style.parts, one.style.parts, comparisons=others)
    ]
    chosen, reason = best, f"{best.name} is the only one to choose."
    if others:
        chosen, reason = _among_equals(near, best)
    equal = tuple(one.name for one in near if one is not chosen)
    return Choice(chosen.name, capitalized(reason), equal, left_out)


def _left_out(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The reason by name of those that nobody would keep."""
    return {one.name: reason for one in candidates if (reason := left_out_reason(one))}


def left_out_reason(one: Candidate) -> str:
    """Why nobody would keep a candidate; empty if nothing is wrong."""
    low = one.style_interval.low
    if one.style.score < 0:
        return "ruined: farther from the style than the base model"
    if low is not None and low <= 0:
        return "without the style: no closer to it than the base model"
    if one.draws_the_same:
        return "ruined: it draws the same whatever the prompt says"
    if recalls(one.copy_ratio):
        return "draws its training images again when asked with their captions"
    return ""


def _among_equals(near: Sequence[Candidate], best: Candidate) -> tuple[Candidate, str]:
    """The one to keep of those that look equally close, and the sentence."""
    if len(near) == 1:
        return best, (
            f"{best.name} is closest to the style; the others are farther by more than chance "
            "explains."
        )
    follow = _best_adherence(near)
    if len(follow) == 1:
        others = join_words([one.name for one in near if one is not follow[0]])
        return follow[0], (
            f"{follow[0].name} and {others} look equally close; {follow[0].name} follows the "
            "prompts best."
        )
    names = join_words([one.name for one in follow])
    fresh = [one for one in follow if not recalls(one.copy_ratio, REMEMBERS)] or follow
    chosen, of_these = fresh[-1], ""
    if chosen is not follow[-1]:
        of_these = " that does not begin to remember your images"
    return chosen, (
        f"{names} look equally close; kept: {chosen.name}, the most trained one{of_these}."
    )


def _best_adherence(near: Sequence[Candidate]) -> list[Candidate]:
    """Those that follow the prompts best, beyond chance; all if it is not measured."""
    measured = [one.adherence for one in near if one.adherence is not None]
    if len(measured) < len(near):
        return list(near)
    best = max(measured, key=lambda values: float(np.mean(values)))
    return [
        one
        for one, values in zip(near, measured, strict=True)
        if not is_above(best, values, comparisons=len(near) - 1)
    ]
