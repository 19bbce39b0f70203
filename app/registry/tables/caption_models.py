"""The table of the models that caption images on this machine."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, utcnow
from app.registry.tables.added_models import AddedModel
from worker.core.captioning.words import family_label


class CaptionModel(AddedModel, table=True):
    """A model that captions images on this machine, from the Hub or a folder."""

    __tablename__ = "caption_model"
    __table_args__ = AUTOINCREMENT

    created_at: datetime = Field(default_factory=utcnow)

    @property
    def family_label(self) -> str:
        """The common name of its kind; empty while unknown."""
        return family_label(self.family)
