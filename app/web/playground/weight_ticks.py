"""The ticks of a weight slider with their words, which stand beside each other at any weight."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from worker.core.lora_files.weights import WeightCard

LEAST, MOST = -1, 2  # ends of the slider
NUMBERS = (0, 1)
NEAR = 0.45  # a word so close to a whole number would touch the number below it
BESIDE_PX = 8  # from the middle of a number to a word beside it


@dataclass(frozen=True)
class WeightTick:
    """A tick: `at` is its place in percent; the word stands `shift` pixels beside it.

    `anchor`: which end of the word is there, as SVG names it. Without a word it is a mark of the
    weight card.
    """

    weight: float
    word: str
    at: float
    anchor: str = "middle"
    shift: int = 0


def weight_ticks(usual: float | None = None, card: WeightCard | None = None) -> list[WeightTick]:
    """The ticks at 0 and 1, at the usual weight if the slider reaches it, and those of the card.

    Its word stands below it, or between it and the whole number next to it, so that it touches
    no number.
    """
    ticks = [WeightTick(number, str(number), _percent(number)) for number in NUMBERS]
    marks = (card.start, card.best, card.breaks) if card else ()
    ticks += [WeightTick(one, "", _percent(one)) for one in marks if one and one <= MOST]
    if usual is None or not LEAST <= usual <= MOST:
        return ticks
    below = min(floor(usual), MOST - 1)
    if usual - below < NEAR:
        return [*ticks, WeightTick(usual, "usual", _percent(below), "start", BESIDE_PX)]
    if usual - below > 1 - NEAR:
        return [*ticks, WeightTick(usual, "usual", _percent(below + 1), "end", -BESIDE_PX)]
    return [*ticks, WeightTick(usual, "usual", _percent(usual))]


def _percent(weight: float) -> float:
    return round(100 * (weight - LEAST) / (MOST - LEAST), 2)
