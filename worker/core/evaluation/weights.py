"""The weights at which an adapter's style starts to show, is best, and breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.core.evaluation.choice import Candidate
from worker.core.evaluation.errors import NotMeasured
from worker.core.lora_files.weights import WeightCard

STARTS = 0.5
"""Share of the best patch score at which the style shows."""

BREAKS = 0.7
"""Share of the best patch score below which a larger weight is too much."""

FOLLOWS = 0.75
"""Share of the adherence at the best weight below which a larger weight is too much."""


@dataclass(frozen=True, kw_only=True)
class WeightMeasure(Candidate):
    """What was measured of a weight; `patches`: its patch score."""

    weight: float
    patches: float

    @property
    def figures(self) -> dict[str, float | None]:
        """What is shown beside the style, by name; None: not measured."""
        return {"adherence": self.mean_adherence, "patches": self.patches}


def weight_card(measures: Sequence[WeightMeasure]) -> WeightCard:
    """The card of weights in rising order. Raises NotMeasured where no weight shows the style."""
    if not measures or max(one.patches for one in measures) <= 0:
        raise NotMeasured("No weight brings the images nearer to the style than the base model.")
    place = max(range(len(measures)), key=lambda at: measures[at].patches)
    best, beyond = measures[place], measures[place + 1 :]
    broken = (one.weight for one in beyond if _is_broken(one, best))
    return WeightCard(_start(measures[: place + 1]), best.weight, next(broken, None))


def _start(rising: Sequence[WeightMeasure]) -> float | None:
    """Where the score first passes half of the best one, by a straight line; None: before them."""
    wanted = STARTS * rising[-1].patches
    at = next(at for at, one in enumerate(rising) if one.patches >= wanted)
    if at == 0:
        return None
    low, high = rising[at - 1], rising[at]
    share = (wanted - low.patches) / (high.patches - low.patches)
    return round(low.weight + share * (high.weight - low.weight), 2)


def _is_broken(one: WeightMeasure, best: WeightMeasure) -> bool:
    if one.patches < BREAKS * best.patches:
        return True
    follows, most = one.mean_adherence, best.mean_adherence
    return follows is not None and most is not None and follows < FOLLOWS * most
