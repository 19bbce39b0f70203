"""Table with the one row that names this registry."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from app.registry.db import utcnow

ONLY_ROW = 1


class Registry(SQLModel, table=True):
    """The identity of this registry; copies of its database have the same."""

    __tablename__ = "registry"

    id: int = Field(default=ONLY_ROW, primary_key=True, description="Always the same: one row.")
    uid: str = Field(max_length=32, description="Random, made once.")
    created_at: datetime = Field(default_factory=utcnow)
