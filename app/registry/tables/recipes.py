"""Table of recipes: a stack of adapters with its prompt and settings, saved under a name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, utcnow
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable
from worker.core.words import SamplerName

MAX_NAME = 120


class RecipeAdapter(ResolvedAdapter, frozen=True, extra="ignore"):
    """An adapter of a recipe; `alias`: the name that its version is found by, None: it is fixed."""

    alias: str | None = None


class Recipe(Restorable, Owned, NumberedRow, table=True):
    """A saved request for images; its slug stays when it is renamed."""

    __tablename__ = "recipe"
    __table_args__ = (AUTOINCREMENT,)

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=MAX_NAME)
    base_model: str = Field(max_length=140, description="Slug of the base model.")
    prompt: str = Field(sa_type=sa.Text)
    negative_prompt: str = Field(default="", sa_type=sa.Text)
    seed: int | None = Field(
        default=None, sa_type=sa.BigInteger, description="None: a random one each time."
    )
    sampler: str = Field(default=SamplerName.DDIM.value, max_length=32)
    steps: int
    guidance: float
    clip_skip: int = 1
    width: int
    height: int
    count: int = 1
    adapters: list[dict[str, Any]] = Field(
        default_factory=list,
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # ids of adapters and versions
        description="As those of a render: found by their ids, also after a rename.",
    )
    source_sha256: str | None = Field(
        default=None, max_length=64, index=True, description="The image that it starts from."
    )
    strength: float | None = Field(default=None, description="How much of that image changes.")
    mix: str = Field(
        default="", max_length=8, description="`blend`: the page holds the sum of the weights."
    )
    cache_key: str = Field(max_length=64, description="That of a render of it: its cover.")
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)

    @property
    def stack(self) -> Sequence[RecipeAdapter]:
        """The adapters with their weights, as they were when it was saved."""
        return [RecipeAdapter.model_validate(entry) for entry in self.adapters]
