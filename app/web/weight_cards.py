"""REST: weight cards of versions."""

from __future__ import annotations

from pydantic import Field

from app.registry.tables.adapters import AdapterVersion
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


def card_out(card: WeightCard) -> WeightCardOut:
    """A card as the API shows it."""
    return WeightCardOut.of(card, base_name=card.base)


def cards_out(version: AdapterVersion) -> list[WeightCardOut]:
    """The cards of a version, one for each base model that was measured."""
    return [card_out(card) for card in version.weight_cards.values()]
