"""Metadata of an adapter file, from the registry to the header; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from worker.core.families.family import BaseFamily
from worker.core.lora_files.file_names import safe_stem
from worker.core.lora_files.weights import USUAL_WEIGHT, WeightCard

USUAL_RESOLUTION = 512
WEIGHT_KEY = "brushwork.usual_weight"
CARDS_KEY = "brushwork.weight_cards"


@dataclass(frozen=True, kw_only=True)
class AdapterMetadata:
    """Metadata of an adapter; `created` is timezone-aware, `resolution` in pixels, None: unknown.

    `training_seconds`: duration of the training that ended at `created`; None for an imported
    adapter. `train_config`: the run's settings as JSON values; `images`: number of training images;
    `cover`: an image generated with the adapter, `cover_sha256` the hash of its stored file.
    `description` and `tags` (notes and tags of the registry) and `tag_counts` (frequency of each
    tag in the captions) are set only if the user wants them in the file.
    """

    title: str
    slug: str
    family: BaseFamily
    created: datetime
    base_name: str = ""
    resolution: int | None = None
    prediction_type: str = "epsilon"
    trigger_words: tuple[str, ...] = ()
    training_seconds: float | None = None
    description: str = ""
    author: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    usual_weight: float = USUAL_WEIGHT
    weight_cards: tuple[WeightCard, ...] = ()
    images: int | None = None
    cover: Path | None = None
    cover_sha256: str | None = None
    train_config: Mapping[str, Any] = field(default_factory=dict)
    tag_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The name of the base model without folder or owner."""
        return PurePath(self.base_name).name

    @property
    def card_words(self) -> list[str]:
        """A sentence on each base model for which it was measured where the style shows."""
        return [
            f"With {PurePath(one.base).name} the style {one.words}." for one in self.weight_cards
        ]

    @property
    def stem(self) -> str:
        """The file name without suffix, which other programs use as the adapter's alias."""
        return safe_stem(self.slug)

    @property
    def predicts_v(self) -> bool:
        """True if the adapter is for v-prediction, not for epsilon prediction."""
        return self.prediction_type == "v_prediction"

    @property
    def file_resolution(self) -> int:
        """The resolution for the file, which must have one."""
        return self.resolution or USUAL_RESOLUTION
