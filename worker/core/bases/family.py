"""The description of a base model, and the error for one that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.core.families.family import BaseFamily
from worker.core.families.folder import BaseModelError as BaseModelError
from worker.core.families.folder import PredictionType
from worker.core.families.variants import Variant

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class BaseInfo:
    """The facts about a base model that are known without loading it.

    `resolution` is the native side in pixels; `parameters` counts parameters by component;
    `fingerprint` is a SHA-256 over headers, sizes and samples of the weights; `zero_empty_negative`
    means that an empty negative prompt is encoded as zeros (SDXL) instead of as text.
    """

    path: Path
    layout: Literal["diffusers", "single_file"]
    family: BaseFamily
    prediction_type: PredictionType
    resolution: int
    cross_attention_dim: int
    parameters: dict[str, int]
    size_bytes: int
    fingerprint: str
    zero_empty_negative: bool
    variant: Variant | None = None
