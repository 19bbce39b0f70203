"""REST: weight cards of versions."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from app.web.answers import Answer
from worker.core.lora_files.weights import WeightCard


class WeightCardOut(Answer):
    """Where the style of a version starts to show, is best, and breaks with a base model."""

    base_name: str = Field(description="Name of the base model.")
    start: float | None = Field(
        description="The style shows halfway; null: below the weights that were compared."
    )
    best: float = Field(description="It is closest to its images.")
    breaks: float | None = Field(
        description="The first weight at which too much of the style or of the prompts is lost; "
        "null: above those that were compared."
    )

    @classmethod
    def of_card(cls, card: WeightCard) -> Self:
        """A card as the API shows it."""
        return cls.of(card, base_name=card.base)
