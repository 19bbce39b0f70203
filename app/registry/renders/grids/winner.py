"""The chosen cell of a grid, and what follows for its adapter: usual weight, alias, cover."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.covers import choose_cover
from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.adapters.versions.aliases import set_alias
from app.registry.adapters.versions.usual_weight import set_usual_weight
from app.registry.adapters.weighted import ResolvedAdapter
from app.registry.errors import Conflict, NotFound
from app.registry.renders import results
from app.registry.renders import service as renders
from app.registry.renders.grids.axes import weight_text
from app.registry.renders.grids.cells import cell_request, read_request
from app.registry.renders.grids.models import Grid
from app.registry.renders.grids.service import get_grid
from app.registry.renders.grids.views import CellView, GridView, grid_view
from app.registry.renders.listing import is_listed
from app.registry.renders.models import Render, RenderAdapter, RenderImage
from app.registry.renders.results import CachedImages, NewRenderImage
from app.registry.runs.checkpoints import use_checkpoint

BEST = "best"


class WinnerAction(StrEnum):
    """What choosing a cell changes beside the grid."""

    NONE = "none"
    WEIGHT = "weight"
    BEST = "best"
    COVER = "cover"


@dataclass(frozen=True)
class Winner:
    """A chosen cell; `told`: what was changed, as a sentence."""

    grid: Grid
    told: str


@dataclass(frozen=True)
class DoneCell:
    """A cell with its image and the render that has it."""

    view: GridView
    cell: CellView
    render: Render
    image: RenderImage


def cell_view(view: GridView, place: int) -> CellView:
    """A cell of a grid. Raises NotFound."""
    if not 0 <= place < len(view.cells):
        raise NotFound("This grid has no such cell.")
    return view.cells[place]


def subject_of(view: GridView, cell: CellView) -> ResolvedAdapter | None:
    """The adapter that a cell is about: the varied one, else the first; None without adapters."""
    if cell.render is None:
        return None
    stack = cell.render.stack_of(cell.index)
    row = next((axis.row for axis in view.axes if axis.kind.is_of_row), 0)
    return stack[min(row, len(stack) - 1)] if stack else None


def choose_winner(session: Session, grid_id: int, place: int, action: WinnerAction) -> Winner:
    """Mark a cell as the chosen one, and make its weight or image that of its adapter.

    A checkpoint becomes a version of an adapter first. Raises Conflict for a cell without image or
    adapter, and NotFound.
    """
    done = _done_cell(session, grid_id, place)
    grid = done.view.grid
    grid.winner = place
    session.add(grid)
    session.flush()
    if action is WinnerAction.NONE:
        return Winner(grid, "This image is the chosen one now.")
    used = subject_of(done.view, done.cell)
    if used is None:
        raise Conflict("This image was generated without adapters, so there is none to change.")
    adapter, version, made = _version_of(session, used)
    if action is WinnerAction.WEIGHT:
        set_usual_weight(session, adapter.key, version.version, used.weight)
        words = f"{weight_text(used.weight)} is the usual weight of “{adapter.name}”"
        return Winner(grid, f"{made}{words}, version {version.version}, now.")
    if action is WinnerAction.BEST:
        set_alias(session, version, BEST)
        told = f"{made}Version {version.version} of “{adapter.name}” is “{BEST}” now."
        return Winner(grid, told)
    session.merge(RenderAdapter(adapter_id=adapter.key, render_id=done.render.key))
    session.flush()
    choose_cover(session, adapter.key, done.image.sha256)
    return Winner(grid, f"{made}This image is the cover of “{adapter.name}” now.")


def _done_cell(session: Session, grid_id: int, place: int) -> DoneCell:
    view = grid_view(session, get_grid(session, grid_id))
    cell = cell_view(view, place)
    if cell.render is None or cell.image is None:
        raise Conflict("This cell has no image yet. Choose another one.")
    return DoneCell(view, cell, cell.render, cell.image)


def _version_of(session: Session, used: ResolvedAdapter) -> tuple[Adapter, AdapterVersion, str]:
    """The adapter and version, and a sentence if a checkpoint was made one for that."""
    adapter = adapters.get_adapter(session, used.adapter_id)
    if adapter.is_listed or adapter.run_id is None:
        return adapter, adapters.get_version(session, adapter, used.version), ""
    made, version = use_checkpoint(session, adapter.run_id, used.version)
    told = f"Step {used.version:,} is version {version.version} of “{made.name}”. "
    return made, version, told


def keep_cell(session: Session, grid_id: int, place: int) -> Render:
    """The image of a cell as a render of its own, which lists show like any other; idempotent."""
    done = _done_cell(session, grid_id, place)
    request = read_request(done.view.grid.request)
    row = renders.plan_single(session, cell_request(request, done.view.axes, place))
    row.precision = done.render.precision
    same = select(Render).where(
        is_listed(), Render.cache_key == row.cache_key, Render.precision == row.precision
    )
    known = session.exec(same.order_by(col(Render.id).desc()).limit(1)).first()
    if known is not None:
        return known
    image = NewRenderImage(done.image.seed, done.image.sha256)
    cached = CachedImages([image], done.render.note, starred=False)
    results.store_cached_render(session, row, cached)
    renders.link_adapters(session, row)
    return row
