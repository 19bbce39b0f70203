"""Results of inspecting a base model, written by the io worker."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import BaseModel
from worker.core.bases.family import BaseInfo


@dataclass(frozen=True)
class InspectionResult:
    """Properties of a base model, read from its configs and headers."""

    family: str
    prediction_type: str
    resolution: int
    cross_attention_dim: int
    parameters: dict[str, int]
    size_bytes: int
    fingerprint: str

    @classmethod
    def of(cls, info: BaseInfo) -> InspectionResult:
        """The result in the registry's form."""
        return cls(
            family=str(info.family),
            prediction_type=str(info.prediction_type),
            resolution=info.resolution,
            cross_attention_dim=info.cross_attention_dim,
            parameters=dict(info.parameters),
            size_bytes=info.size_bytes,
            fingerprint=info.fingerprint,
        )


def write_inspection(session: Session, base_id: int, found: InspectionResult) -> None:
    """Store the result and mark the base model ready, unless it was removed meanwhile."""
    base = session.get_one(BaseModel, base_id)
    if base.status == ModelStatus.REMOVED:
        return
    base.family = found.family
    base.prediction_type = found.prediction_type
    base.resolution = found.resolution
    base.cross_attention_dim = found.cross_attention_dim
    base.parameters = dict(found.parameters)
    base.size_bytes = found.size_bytes
    base.fingerprint = found.fingerprint
    base.status, base.error = ModelStatus.READY, None
    session.add(base)


def write_unusable(session: Session, base_id: int, sentence: str) -> None:
    """Mark the base model failed with the reason, unless it was removed meanwhile."""
    base = session.get_one(BaseModel, base_id)
    if base.status == ModelStatus.REMOVED:
        return
    base.status, base.error = ModelStatus.FAILED, sentence
    session.add(base)
