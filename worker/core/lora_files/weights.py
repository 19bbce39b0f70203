"""Limits of adapter weights and what was found of them, without torch, for forms and workers."""

from __future__ import annotations

import math

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from worker.core.wording import join_words

MAX_WEIGHT = 10.0
USUAL_WEIGHT = 1.0  # of a version whose usual weight nobody edited
MAX_RENDER_ADAPTERS = 8
MAX_STRIP = 25  # images of one seed with weights of their own: a square of 5 × 5
MAX_STRIP_ADAPTERS = MAX_STRIP + MAX_RENDER_ADAPTERS - 1
"""In all images of a strip together: each with another one, beside the most that one image has."""
MAX_MERGE_ADAPTERS = 16


def weight_problem(weight: float, name: str = "") -> str:
    """A sentence on why the weight of an adapter is not accepted; empty if it is."""
    what = f"The weight of “{name}”" if name else "The weight"
    if not math.isfinite(weight):
        return f"{what} is not a number."
    if abs(weight) > MAX_WEIGHT:
        return f"{what} is {weight:g}; weights from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g} are accepted."
    return ""


def weight_name(weight: float) -> str:
    """What people read of a weight."""
    return f"weight {weight:g}"


@dataclass(frozen=True, config=ConfigDict(json_schema_serialization_defaults_required=True))
class WeightCard:
    """Where the style of a version starts to show, is best, and breaks with a base model."""

    start: float | None = Field(
        description="The style shows halfway; null: below the weights that were compared."
    )
    best: float = Field(description="It is closest to its images.")
    breaks: float | None = Field(
        description="The first weight at which too much of the style or of the prompts is lost; "
        "null: above those that were compared."
    )
    base: str = Field(
        default_factory=str, serialization_alias="base_name", description="Name of the base model."
    )

    @property
    def words(self) -> str:
        """What the style does, such as “shows from 0.45, is best at 1 and breaks at 1.5”."""
        shows = [] if self.start is None else [f"shows from {self.start:g}"]
        breaks = [] if self.breaks is None else [f"breaks at {self.breaks:g}"]
        return join_words([*shows, f"is best at {self.best:g}", *breaks])
