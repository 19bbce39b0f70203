"""What the io worker found when it looked at a base model."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.base_models.models import BaseModel, BaseModelStatus
from worker.core.bases.family import BaseInfo


@dataclass(frozen=True)
class Found:
    """What a base model is, read from its configs and headers."""

    family: str
    prediction_type: str
    resolution: int
    cross_attention_dim: int
    parameters: dict[str, int]
    size_bytes: int
    fingerprint: str

    @classmethod
    def of(cls, info: BaseInfo) -> Found:
        """What an inspection told."""
        return cls(
            family=str(info.family),
            prediction_type=str(info.prediction_type),
            resolution=info.resolution,
            cross_attention_dim=info.cross_attention_dim,
            parameters=dict(info.parameters),
            size_bytes=info.size_bytes,
            fingerprint=info.fingerprint,
        )


def write_found(session: Session, base_id: int, found: Found) -> None:
    """The base model can be used, unless it was removed meanwhile."""
    base = session.get_one(BaseModel, base_id)
    if base.status == BaseModelStatus.REMOVED:
        return
    base.family = found.family
    base.prediction_type = found.prediction_type
    base.resolution = found.resolution
    base.cross_attention_dim = found.cross_attention_dim
    base.parameters = dict(found.parameters)
    base.size_bytes = found.size_bytes
    base.fingerprint = found.fingerprint
    base.status, base.error = BaseModelStatus.READY, None
    session.add(base)


def write_unusable(session: Session, base_id: int, sentence: str) -> None:
    """The base model cannot be used, and why; one that was removed meanwhile stays so."""
    base = session.get_one(BaseModel, base_id)
    if base.status == BaseModelStatus.REMOVED:
        return
    base.status, base.error = BaseModelStatus.FAILED, sentence
    session.add(base)
