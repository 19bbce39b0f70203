"""The size at which a dataset is trained."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.datasets.used_datasets import is_of_datasets
from app.registry.db import cached_by_snapshot
from app.registry.tables.base_models import EMBEDDED, BaseModel
from app.registry.tables.runs import Run


@dataclass(frozen=True)
class TrainingSide:
    """The side in pixels at which a dataset is trained, and the base model that it is of.

    `squares`: every image is cropped to a square.
    """

    pixels: int
    base_name: str
    squares: bool = False


@cached_by_snapshot
def training_side(session: Session, dataset_id: int) -> TrainingSide:
    """The side of the dataset's last run; without a run, that of the embedded base model."""
    last = (
        select(Run.config, BaseModel.resolution, BaseModel.name)
        .join(BaseModel, col(BaseModel.id) == col(Run.base_model_id))
        .where(is_of_datasets([dataset_id]))
        .order_by(col(Run.id).desc())
    )
    found = session.exec(last.limit(1)).first()
    if found is not None:
        config, native, name = found
        pixels = config.get("resolution") or native or USUAL_SIDE
        return TrainingSide(pixels, name, squares=config.get("aspect_buckets") is False)
    embedded = select(BaseModel.resolution, BaseModel.name).where(BaseModel.source == EMBEDDED)
    native, name = session.exec(embedded).first() or (None, "")
    return TrainingSide(native or USUAL_SIDE, name)
