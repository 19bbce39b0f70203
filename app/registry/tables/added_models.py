"""Columns and states of the models that people add: base models and caption models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.hub_source import SCHEME, HubSource, read_source
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow


class ModelStatus(StrEnum):
    """Status of a model; only READY ones can be used, and only base models are REMOVED."""

    DOWNLOADING = "downloading"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"
    REMOVED = "removed"


CHANGING = (ModelStatus.DOWNLOADING, ModelStatus.CHECKING)  # until an io worker is done


class AddedModel(Owned, NumberedRow):
    """A model from the Hub or from a path on this machine."""

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=120)
    source: str = Field(
        unique=True,
        description="Path, or hf://owner/name. Of base models also `starter` for the embedded one, "
        "and `starter@…` for one that an older version had embedded.",
    )
    local_path: str | None = Field(default=None, description="Path of a download from the Hub.")
    revision: str | None = Field(
        default=None, max_length=64, description="The commit of a download from the Hub."
    )
    status: str = Field(default=ModelStatus.CHECKING, max_length=16)
    error: str | None = None
    family: str | None = Field(default=None, max_length=16, description="Such as sd1, florence2.")
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)

    @property
    def is_from_hub(self) -> bool:
        """True if its files come from the Hub."""
        return self.source.startswith(SCHEME)

    @property
    def hub_source(self) -> HubSource | None:
        """The repository that its files come from; None for a path."""
        return read_source(self.source) if self.is_from_hub else None

    @property
    def reason(self) -> str | None:
        """The sentence of the row on why it cannot be used, if any."""
        return self.error

    @property
    def place(self) -> str:
        """Its source as shown to users."""
        return self.source.removeprefix(SCHEME)

    @property
    def location(self) -> Path:
        """Path of its files on this machine."""
        return Path(self.local_path or self.source)
