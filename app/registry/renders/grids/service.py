"""Operations on grids: create, find, cancel, continue, rename, delete, restore."""

from __future__ import annotations

from contextlib import suppress

from sqlmodel import Session, col, select

from app.registry.actor import making_for
from app.registry.base_models import service as base_models
from app.registry.db import in_chunks, utcnow
from app.registry.errors import Conflict, InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.states import NOT_FINAL, JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import service as renders
from app.registry.renders import sources
from app.registry.renders.grids.cells import (
    Batch,
    batches_of,
    cell_request,
    read_request,
    stored_request,
)
from app.registry.renders.grids.plan import GridPlan, find_cached, usual_title
from app.registry.renders.plan import plan_single
from app.registry.renders.sources import SourceImage
from app.registry.storage.store import BlobStore
from app.registry.tables.renders import MAX_TITLE, Grid, GridCell, Render, is_on_its_own
from app.registry.validation import one_line, too_long

SLOT = "grid:{grid}:{place}"  # no other draft can be in it: slots of the API have no colon


def create_grid(session: Session, plan: GridPlan, store: BlobStore) -> Grid:
    """Store a planned grid and queue the images that are not there yet.

    An image to start from is kept by its hash, so that it stays when its own render goes.
    """
    request = plan.request
    if request.source is not None:
        found = sources.find_source(session, request.source)
        sources.remember(session, found)
        request = request.model_copy(update={"source": SourceImage(sha256=found.sha256)})
    grid = Grid(
        title=plan.title,
        request=stored_request(request),
        axes=[axis.model_dump(mode="json") for axis in plan.axes],
    )
    session.add(grid)
    session.flush()
    cells = {
        place: GridCell(grid_id=grid.key, place=place, cache_key=row.cache_key)
        for place, row in plan.planned.items()
    }
    session.add_all(cells.values())
    _fill(session, grid, plan, cells, store)
    return grid


def _fill(
    session: Session, grid: Grid, plan: GridPlan, cells: dict[int, GridCell], store: BlobStore
) -> None:
    """Give each of these cells its image: a cached one, or one of a render that is queued."""
    images = {key: (cached.render_id, cached.index) for key, cached in plan.cached.items()}
    first: dict[str, int] = {}
    for place in sorted(cells):
        key = plan.planned[place].cache_key
        if key not in images:
            first.setdefault(key, place)
    missing = {place: plan.planned[place] for place in first.values()}
    for batch in batches_of(missing, most=plan.batch, mixed=not plan.is_continued):
        render = _queue(session, grid, plan, batch, store)
        for index, place in enumerate(batch.places):
            images[plan.planned[place].cache_key] = (render.key, index)
    for place, cell in cells.items():
        cell.render_id, cell.image_index = images[plan.planned[place].cache_key]
        session.add(cell)
    session.flush()


def _queue(session: Session, grid: Grid, plan: GridPlan, batch: Batch, store: BlobStore) -> Render:
    row = plan.planned[batch.places[0]]
    if batch.weights is not None:
        request = cell_request(plan.request, plan.axes, batch.places[0])
        # the adapters that the prompt names are in the stack as well
        strip = {"prompt": row.prompt, "adapters": batch.stack, "weights": batch.weights}
        with making_for(grid.owner_id, grid.visibility):
            row = plan_single(session, request.model_copy(update=strip))
    row.draft_slot = SLOT.format(grid=grid.key, place=batch.places[0])
    row.priority = plan.priority
    return renders.store_planned(session, row, store)


def get_grid(session: Session, grid_id: int) -> Grid:
    """Look up a grid. Raises NotFound."""
    grid = session.get(Grid, grid_id)
    if grid is None:
        raise NotFound("There is no such grid; it may have been deleted for good.")
    return grid


def require_shown(session: Session, grid_id: int) -> None:
    """Raises Conflict for the grid of a blind test that has not ended: it tells who is who."""
    if renders.is_blind(session, col(GridCell.grid_id) == grid_id):
        raise Conflict("This grid is shown once its blind test has ended.")


def cells_of(session: Session, grid_id: int) -> list[GridCell]:
    """The cells of a grid in order."""
    query = select(GridCell).where(GridCell.grid_id == grid_id)
    return list(session.exec(query.order_by(col(GridCell.place))))


def cancel_grid(session: Session, grid_id: int) -> Grid:
    """Cancel the images that are still to come, unless another grid waits for them; idempotent.

    Raises Conflict if none is to come, and none was canceled.
    """
    grid = get_grid(session, grid_id)
    of_grid = col(GridCell.grid_id) == grid_id
    query = select(Render.status).join(GridCell, col(GridCell.render_id) == col(Render.id))
    if not {*session.exec(query.where(of_grid))} & {*NOT_FINAL, JobStatus.CANCELED}:
        raise Conflict("This grid has already ended, so it cannot be canceled.")
    own = select(GridCell.render_id).where(GridCell.grid_id == grid_id)
    others = (
        select(GridCell.render_id)
        .join(Grid, col(Grid.id) == col(GridCell.grid_id))
        .where(col(GridCell.grid_id) != grid_id, col(Grid.deleted_at).is_(None))
        .where(col(GridCell.render_id).is_not(None))
    )
    unfinished = select(Render).where(
        col(Render.id).in_(own),
        col(Render.id).not_in(others),
        col(Render.status).in_(NOT_FINAL),
    )
    jobs.cancel_all(session, Render, session.exec(unfinished).all())
    return grid


def plan_missing(session: Session, grid_id: int) -> GridPlan | None:
    """The plan for the images that a grid lacks; None if it lacks none.

    Raises InvalidInput if none of them can be generated any more, Conflict for a deleted grid.
    """
    grid = get_grid(session, grid_id)
    if grid.deleted_at is not None:
        raise Conflict("This grid was deleted. Restore it first.")
    axes, request = list(grid.varied), read_request(grid.request)
    places = [cell.place for cell in _missing(session, grid_id)]
    if not places:
        return None
    planned: dict[int, Render] = {}
    refused: dict[int, str] = {}
    for place in places:
        try:
            with making_for(grid.owner_id, grid.visibility):
                planned[place] = plan_single(session, cell_request(request, axes, place))
        except InvalidInput as error:
            refused[place] = " ".join(dict.fromkeys(error.fields.values()))
    if not planned:
        sentence = " ".join(dict.fromkeys(refused.values()))
        raise InvalidInput(f"None of the missing images can be generated any more. {sentence}")
    base = base_models.find_base_model(session, request.base_model)
    cached = find_cached(session, list(planned.values()))
    return GridPlan(
        request,
        axes,
        base,
        grid.title,
        [],
        planned,
        cached,
        None,
        is_continued=True,
        refused=refused,
    )


def _missing(session: Session, grid_id: int) -> list[GridCell]:
    """The cells whose image failed, was canceled or was deleted."""
    cells = cells_of(session, grid_id)
    keys = {cell.render_id for cell in cells if cell.render_id is not None}
    fine: set[int] = set()
    for chunk in in_chunks(keys):
        query = select(Render.id).where(
            col(Render.id).in_(chunk),
            col(Render.deleted_at).is_(None),
            col(Render.cancel_requested).is_(False),
            col(Render.status).in_([*NOT_FINAL, JobStatus.SUCCEEDED]),
        )
        fine.update(key for key in session.exec(query) if key is not None)
    return [cell for cell in cells if cell.render_id not in fine]


def continue_grid(session: Session, grid_id: int, plan: GridPlan, store: BlobStore) -> Grid:
    """Queue the images that a grid lacks, as `plan_missing` planned them."""
    grid = get_grid(session, grid_id)
    cells = {cell.place: cell for cell in _missing(session, grid_id) if cell.place in plan.planned}
    for place, cell in cells.items():
        cell.cache_key = plan.planned[place].cache_key
    _fill(session, grid, plan, cells, store)
    return grid


def delete_grid(session: Session, grid_id: int) -> Grid:
    """Delete a grid and cancel its unfinished images; it can be restored. Idempotent.

    Raises Conflict for the grid of a blind test or a sweep.
    """
    grid = get_grid(session, grid_id)
    own = select(Grid.id).where(Grid.id == grid_id, is_on_its_own())
    if session.exec(own).first() is None:
        raise Conflict("This grid belongs to a blind test or a sweep, and is deleted with it.")
    with suppress(Conflict):
        cancel_grid(session, grid_id)
    if grid.deleted_at is None:
        grid.deleted_at = utcnow()
        session.add(grid)
        session.flush()
    return grid


def rename_grid(session: Session, grid_id: int, title: str) -> Grid:
    """Rename a grid; an empty title is the usual one. Raises InvalidInput."""
    grid = get_grid(session, grid_id)
    title = one_line(title)
    if len(title) > MAX_TITLE:
        raise invalid_field("title", too_long(title, MAX_TITLE))
    grid.title = title or usual_title(grid.varied)
    session.add(grid)
    session.flush()
    return grid
