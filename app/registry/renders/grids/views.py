"""Grids as they are now: the state of each cell, what is done, what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from sqlmodel import Session, col, func, select

from app.registry.job_kinds.states import JobStatus
from app.registry.paging import Page, read_rows
from app.registry.renders import drafts, listing
from app.registry.renders.grids.cells import position_of, title_at
from app.registry.renders.grids.service import cells_of
from app.registry.tables.axes import Axis
from app.registry.tables.renders import Grid, GridCell, Render, RenderImage, is_on_its_own

GRIDS_A_PAGE = 24


GridState = Literal["active", "done", "incomplete"]


class CellState(StrEnum):
    """The state of the image of a cell, in the words of jobs."""

    DONE = "succeeded"
    RUNNING = "running"
    WAITING = "queued"
    FAILED = "failed"
    CANCELED = "canceled"
    DELETED = "deleted"

    @property
    def label(self) -> str:
        """Its name on pages."""
        return {"succeeded": "done", "running": "generating", "queued": "waiting"}.get(self, self)

    @property
    def is_active(self) -> bool:
        """True while the image is still to come."""
        return self in (CellState.RUNNING, CellState.WAITING)


STATES = {
    JobStatus.QUEUED: CellState.WAITING,
    JobStatus.PAUSED: CellState.WAITING,
    JobStatus.RUNNING: CellState.RUNNING,
    JobStatus.FAILED: CellState.FAILED,
    JobStatus.CANCELED: CellState.CANCELED,
}


@dataclass(frozen=True)
class CellView:
    """A cell: column, row and sheet, its state, and its image once it is there."""

    place: int
    column: int
    row: int
    sheet: int
    state: CellState
    render: Render | None
    image: RenderImage | None
    index: int

    @property
    def error(self) -> str:
        """Why it has no image, as a sentence; empty if it has one or gets one."""
        if self.state is CellState.FAILED and self.render is not None:
            return self.render.error or "This image could not be generated."
        return ""


@dataclass(frozen=True)
class GridView:
    """A grid with all of its cells, in order; `seconds`: about how long the rest takes."""

    grid: Grid
    axes: Sequence[Axis]
    cells: Sequence[CellView]
    seconds: float | None

    @property
    def done(self) -> int:
        """Number of cells with an image."""
        return sum(cell.state is CellState.DONE for cell in self.cells)

    @property
    def is_active(self) -> bool:
        """True while images are still to come."""
        return any(cell.state.is_active for cell in self.cells)

    @property
    def lacking(self) -> int:
        """Number of cells that neither have an image nor get one."""
        return sum(not cell.state.is_active and cell.image is None for cell in self.cells)

    @property
    def state(self) -> GridState:
        """`active`, `done`, or `incomplete` if cells have no image and get none."""
        if self.is_active:
            return "active"
        return "incomplete" if self.lacking else "done"

    def on_sheet(self, sheet: int) -> list[CellView]:
        """The cells of one sheet."""
        return [cell for cell in self.cells if cell.sheet == sheet]

    def labels_of(self, cell: CellView) -> list[str]:
        """The values of a cell: column, row, sheet."""
        at = (cell.column, cell.row, cell.sheet)
        return [axis.labels[index] for axis, index in zip(self.axes, at, strict=False)]

    def title_of(self, cell: CellView) -> str:
        """The values of a cell in words, such as “a castle, Chalk 0.75”."""
        return title_at(self.axes, cell.place)


def grid_view(session: Session, grid: Grid) -> GridView:
    """A grid as it is now."""
    rows = cells_of(session, grid.key)
    keys = {cell.render_id for cell in rows if cell.render_id is not None}
    renders = {row.key: row for row in session.exec(select(Render).where(col(Render.id).in_(keys)))}
    images = listing.images_of(session, list(renders.values()))
    cells = [_cell_view(grid, cell, renders, images) for cell in rows]
    return GridView(grid, grid.varied, cells, _seconds_left(session, cells))


def _cell_view(
    grid: Grid, cell: GridCell, renders: dict[int, Render], images: dict[int, list[RenderImage]]
) -> CellView:
    column, row, sheet = position_of(grid.sizes, cell.place)
    render = renders.get(cell.render_id or 0)
    image, state = None, CellState.DELETED
    if render is not None and render.deleted_at is None:
        found = (one for one in images[render.key] if one.index == cell.image_index)
        image = next(found, None)
        usual = CellState.CANCELED if render.cancel_requested else STATES.get(render.state)
        state = CellState.DONE if image else usual or CellState.DELETED
    return CellView(cell.place, column, row, sheet, state, render, image, cell.image_index)


def _seconds_left(session: Session, cells: Sequence[CellView]) -> float | None:
    """About how long the images take that are still to come; None while that is not known."""
    active = {
        cell.render.key: cell.render
        for cell in cells
        if cell.state.is_active and cell.render is not None
    }
    return drafts.seconds_of(session, active.values()) if active else None


@dataclass(frozen=True)
class GridRow:
    """A grid in the list: its first images, and how many of its cells have one."""

    grid: Grid
    cells: int
    done: int
    images: Sequence[RenderImage]


def list_grids(
    session: Session,
    *,
    deleted: bool = False,
    size: int = GRIDS_A_PAGE,
    number: int = 1,
    before: int | None = None,
) -> Page[GridRow]:
    """Grids, newest first, without those of blind tests and sweeps; `before`: with lower ids."""
    moment = col(Grid.deleted_at)
    there = moment.is_not(None) if deleted else moment.is_(None)
    shown = there, is_on_its_own()
    found = read_rows(session, Grid, *shown, size=size, number=number, before=before)
    return found.of(grid_rows(session, found.items))


COVERS = 4


def grid_rows(session: Session, grids: Sequence[Grid]) -> list[GridRow]:
    """These grids with their first images, and how many cells have theirs."""
    keys = [grid.key for grid in grids]
    columns = (col(GridCell.grid_id), func.count(), func.count(col(RenderImage.id)))
    joined = (
        select(*columns)
        .select_from(GridCell)
        .outerjoin(
            RenderImage,
            (col(RenderImage.render_id) == col(GridCell.render_id))
            & (col(RenderImage.index) == col(GridCell.image_index)),
        )
        .where(col(GridCell.grid_id).in_(keys))
        .group_by(col(GridCell.grid_id))
    )
    counts = {key: (cells, done) for key, cells, done in session.exec(joined)}
    found = []
    for grid in grids:
        first = (
            select(RenderImage)
            .join(
                GridCell,
                (col(RenderImage.render_id) == col(GridCell.render_id))
                & (col(RenderImage.index) == col(GridCell.image_index)),
            )
            .where(GridCell.grid_id == grid.key)
            .order_by(col(GridCell.place))
            .limit(COVERS)
        )
        found.append(GridRow(grid, *counts.get(grid.key, (0, 0)), session.exec(first).all()))
    return found
