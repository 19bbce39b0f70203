"""Tables of grids: one request with up to three settings varied, each cell an image of a render."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel, col

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.tables.axes import Axis, sizes_of
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable

MAX_TITLE = 120


class Grid(Restorable, Owned, NumberedRow, table=True):
    """A grid; its cells are numbered row by row, sheet by sheet."""

    __tablename__ = "grid"
    __table_args__ = (AUTOINCREMENT,)

    title: str = Field(max_length=MAX_TITLE)
    request: dict[str, Any] = Field(
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # no files
        description="The RenderRequest that all cells share, with base model, seed and versions.",
    )
    axes: list[dict[str, Any]] = Field(
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # no files
        description="Columns, rows and sheets, as far as there are any.",
    )
    winner: int | None = Field(default=None, description="Place of the chosen cell.")
    blind_test_id: int | None = Field(
        default=None, index=True, description="The blind test that owns it: it is in no list."
    )
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def varied(self) -> Sequence[Axis]:
        """Its axes: columns, rows, sheets."""
        return [Axis.model_validate(axis) for axis in self.axes]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of columns, rows and sheets."""
        return sizes_of(self.varied)


def drawn_by_sweeps(*jobs: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
    """The ids of the grids whose images sweeps measure, under conditions on these jobs."""
    grid_id = col(IoJob.args)["grid_id"].as_integer()
    return sa.select(grid_id).where(col(IoJob.kind) == JobKind.ADVANCE_SWEEP, grid_id > 0, *jobs)


def is_on_its_own() -> sa.ColumnElement[bool]:
    """Condition on grids: no blind test and no sweep had it drawn, so it is in the lists."""
    return col(Grid.blind_test_id).is_(None) & col(Grid.id).not_in(drawn_by_sweeps())


class GridCell(SQLModel, table=True):
    """A cell of a grid and the image in it."""

    __tablename__ = "grid_cell"

    grid_id: int = Field(foreign_key="grid.id", primary_key=True)
    place: int = Field(primary_key=True)
    render_id: int | None = Field(
        default=None,
        foreign_key="render.id",
        index=True,
        description="None: the render was deleted for good.",
    )
    image_index: int = Field(default=0, description="Index of the image in its render.")
    cache_key: str = Field(
        max_length=64, index=True, description="Of a render of this image alone."
    )
