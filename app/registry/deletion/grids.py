"""Deletes grids for good, and says which renders only deleted grids need."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from app.registry.db import in_chunks
from app.registry.tables.renders import Grid, GridCell, Render


def is_in_grid() -> ColumnElement[bool]:
    """Condition for renders with an image in a grid, also in a deleted one."""
    return select(1).where(col(GridCell.render_id) == col(Render.id)).exists()


IS_DELETED = col(Grid.deleted_at).is_not(None)


def is_only_in(grids: ColumnElement[bool] = IS_DELETED) -> ColumnElement[bool]:
    """Condition for renders that were made for grids, all of which meet a condition."""

    def in_grids(which: ColumnElement[bool]) -> ColumnElement[bool]:
        return (
            select(1)
            .select_from(GridCell)
            .join(Grid, col(Grid.id) == col(GridCell.grid_id))
            .where(col(GridCell.render_id) == col(Render.id), which)
            .exists()
        )

    made_for_them = col(Render.draft_slot).is_not(None)
    return made_for_them & in_grids(grids) & ~in_grids(~grids)


def forget_renders(session: Session, render_ids: list[int]) -> None:
    """Leave the cells of renders that are deleted for good without an image."""
    change = sa.update(GridCell).where(col(GridCell.render_id).in_(render_ids))
    session.connection().execute(change.values(render_id=None))


def delete_grids(session: Session, grids: ColumnElement[bool] = IS_DELETED) -> int:
    """Delete grids for good, without their images; return how many they were."""
    deleted = session.exec(select(Grid.id).where(grids))
    keys = [key for key in deleted if key is not None]
    for chunk in in_chunks(keys):
        for table, column in ((GridCell, col(GridCell.grid_id)), (Grid, col(Grid.id))):
            session.connection().execute(sa.delete(table).where(column.in_(chunk)))
    session.expire_all()
    return len(keys)
