"""The size and the base model with which a dataset is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.datasets.used_datasets import is_of_datasets
from app.registry.db import cached_by_snapshot
from app.registry.tables.added_models import EMBEDDED, BaseModel
from app.registry.tables.runs import Run


@dataclass(frozen=True)
class TrainingSide:
    """The side in pixels at which a dataset is trained, and the base model that it is of.

    `is_embedded`: the base model is. `squares`: every image is cropped to a square.
    `caption_tokens`: how many it reads at most.
    """

    pixels: int
    base_name: str
    is_embedded: bool = False
    squares: bool = field(default=False, compare=False)  # no finding depends on it
    caption_tokens: int = 75


def side_of(
    base: BaseModel, resolution: int | None = None, *, squares: bool = False
) -> TrainingSide:
    """The side at which a run of this base model trains; without a resolution, the base's own."""
    pixels = resolution or base.resolution or USUAL_SIDE
    tokens = base.options.caption_tokens
    return TrainingSide(pixels, base.name, base.source == EMBEDDED, squares, tokens)


@cached_by_snapshot
def training_side(session: Session, dataset_id: int) -> TrainingSide:
    """The side of the dataset's last run; without a run, that of the embedded base model."""
    last = (
        select(BaseModel, Run.config)
        .join(Run, col(BaseModel.id) == col(Run.base_model_id))
        .where(is_of_datasets([dataset_id]))
        .order_by(col(Run.id).desc())
    )
    if (found := session.exec(last.limit(1)).first()) is not None:
        base, config = found
        squares = config.get("aspect_buckets") is False
        return side_of(base, config.get("resolution"), squares=squares)
    embedded = session.exec(select(BaseModel).where(BaseModel.source == EMBEDDED)).first()
    return side_of(embedded) if embedded else TrainingSide(USUAL_SIDE, "")
