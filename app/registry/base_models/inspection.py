"""Results of inspecting a base model, written by the io worker."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.added_models.service import present_model
from app.registry.base_models.service import BASE_MODELS
from app.registry.tables.added_models import ModelStatus
from worker.core.bases.family import BaseInfo


def write_inspection(session: Session, base_id: int, info: BaseInfo) -> None:
    """Store the facts and mark the base model ready, unless it was removed meanwhile."""
    base = present_model(session, BASE_MODELS, base_id)
    if base is None:
        return
    base.family = str(info.family)
    base.prediction_type = info.prediction_type
    base.resolution = info.resolution
    base.cross_attention_dim = info.cross_attention_dim
    base.parameters = dict(info.parameters)
    base.size_bytes = info.size_bytes
    base.fingerprint = info.fingerprint
    base.status, base.error = ModelStatus.READY, None
    session.add(base)
