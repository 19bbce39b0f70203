"""Database rows that a run is trained from."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.base_models.models import BaseModel
from app.registry.datasets.models import Dataset, DatasetVersion


@dataclass(frozen=True)
class RunInputs:
    """Base model and data of a run; `slug` is the slug that its adapter will get."""

    base: BaseModel
    dataset: Dataset
    version: DatasetVersion
    regularization: DatasetVersion | None
    slug: str
