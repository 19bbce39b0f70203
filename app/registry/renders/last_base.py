"""The base model that the newest image was asked for with."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import BaseModel
from app.registry.tables.renders import Render


def last_used_base(session: Session) -> BaseModel | None:
    """The base model of the newest render, if it can be used."""
    newest = select(Render.base_model_id).order_by(col(Render.id).desc()).limit(1)
    key = session.exec(newest).first()
    base = None if key is None else session.get(BaseModel, key)
    return base if base is not None and base.status == ModelStatus.READY else None
