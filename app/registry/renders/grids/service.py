"""Operations on grids: plan, create, find, cancel, continue, delete, restore."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlmodel import Session, col, select

from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.adapters.weighted import WeightedAdapter
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.db import in_chunks, utcnow
from app.registry.errors import AppError, Conflict, InvalidInput, NotFound
from app.registry.integrity import findings
from app.registry.jobs import service as jobs
from app.registry.jobs.states import NOT_FINAL, JobStatus
from app.registry.renders import drafts
from app.registry.renders import service as renders
from app.registry.renders.grids.axes import (
    PLACES,
    Axis,
    AxisContext,
    AxisKind,
    AxisRequest,
    read_axis,
)
from app.registry.renders.grids.cells import (
    Batch,
    batches_of,
    cell_request,
    read_request,
    stored_request,
)
from app.registry.renders.grids.models import MAX_TITLE, Grid, GridCell
from app.registry.renders.grids.numbers import MAX_VALUES
from app.registry.renders.models import Render, RenderImage
from app.registry.renders.service import MAX_RANDOM_SEED, RenderRequest
from app.registry.renders.strips import MAX_STRIP
from app.registry.storage.store import BlobStore
from app.registry.validation import named_reasons, too_long
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

MAX_CELLS = MAX_VALUES
GRID_PRIORITY = 10  # after live redraws and single images
SLOT = "grid:{grid}:{place}"  # no other draft can be in it: slots of the API have no colon
BATCH_SECONDS = 6.0  # others wait for no more than one batch
UNKNOWN_BATCH = 4  # images in a batch while nothing is known of the base model's speed


@dataclass(frozen=True)
class GridRequest:
    """A grid to make: the request that its cells share, and one to three axes."""

    request: RenderRequest
    axes: Sequence[AxisRequest]
    title: str = ""


@dataclass(frozen=True)
class Cached:
    """An image that is there already."""

    render_id: int
    index: int


@dataclass(frozen=True)
class GridPlan:
    """A grid that can be made, with its cost; nothing is stored.

    `planned`: the render of each cell alone, by place. `cached`: images by cache key.
    `seconds`: of all images that are not cached; None while nothing is known of the base model.
    """

    request: RenderRequest
    axes: list[Axis]
    base: BaseModel
    title: str
    notes: list[str]
    planned: dict[int, Render]
    cached: dict[str, Cached]
    seconds: float | None
    batch: int = UNKNOWN_BATCH

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.planned)

    @property
    def images(self) -> int:
        """Number of images: equal cells have one."""
        return len({render.cache_key for render in self.planned.values()})

    @property
    def new_images(self) -> int:
        """Number of images to be generated."""
        keys = {render.cache_key for render in self.planned.values()}
        return len(keys - self.cached.keys())


@dataclass
class _Problems:
    """Reasons by field."""

    fields: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        if self.fields:
            raise InvalidInput(named_reasons(self.fields), fields=self.fields)


def plan_grid(session: Session, wanted: GridRequest) -> GridPlan:
    """Check a grid and estimate its cost.

    Raises InvalidInput with the reason for each bad field: `columns`, `rows`, `sheets`, `title`,
    and those of a render.
    """
    problems = _Problems()
    title = " ".join(wanted.title.split())
    if len(title) > MAX_TITLE:
        problems.fields["title"] = too_long(title, MAX_TITLE)
    if not wanted.axes or len(wanted.axes) > len(PLACES):
        problems.fields["columns"] = "Choose what the columns, rows or sheets vary: one to three."
        problems.check()
    base, names = _base_of(session, wanted, problems)
    context = AxisContext(session, wanted.request.prompt, names, base)
    axes, notes = _read_axes(wanted.axes, context, problems)
    problems.check()
    request = _with_fixed(session, wanted.request, base)
    planned = _plan_cells(session, request, axes, problems)
    each = drafts.expected_seconds(session, base, steps=1, width=1, height=1)
    cached = _find_cached(session, list(planned.values()))
    new = {row.cache_key: row for row in planned.values() if row.cache_key not in cached}
    costs = [row.steps * row.width * row.height for row in new.values()]
    dearest = max((row.steps * row.width * row.height for row in planned.values()), default=1)
    batch = UNKNOWN_BATCH
    if each is not None:
        batch = min(MAX_STRIP, max(1, int(BATCH_SECONDS / max(each * dearest, 1e-6))))
    return GridPlan(
        request=request,
        axes=axes,
        base=base,
        title=title or usual_title(axes),
        notes=notes,
        planned=planned,
        cached=cached,
        seconds=None if each is None else each * sum(costs),
        batch=batch,
    )


def usual_title(axes: Sequence[Axis]) -> str:
    """What the axes vary, such as “Weight × prompt”."""
    words = " × ".join(axis.kind.label.lower() for axis in axes)
    return words[:1].upper() + words[1:]


def _base_of(
    session: Session, wanted: GridRequest, problems: _Problems
) -> tuple[BaseModel, list[str]]:
    """The base model of all cells, and the names of the adapters of the stack."""
    made, names = [], []
    for used in wanted.request.adapters[:MAX_RENDER_ADAPTERS]:
        try:
            resolved, pair = resolve(session, used)
        except NotFound as error:
            problems.fields["adapters"] = error.detail
            continue
        made.append(pair)
        names.append(resolved.name)
    if not made:
        made = _first_of_axes(session, wanted.axes)
    varied = {
        axis.row for axis in wanted.axes if axis.kind in (AxisKind.ADAPTER, AxisKind.CHECKPOINT)
    }
    if varied and not names:
        names = ["Weight"]
    names = ["Weight" if row in varied else name for row, name in enumerate(names)]
    own = renders.usual_base(session, made) if wanted.request.base_model is None else None
    try:
        base = own or base_models.find_base_model(session, wanted.request.base_model)
    except AppError as error:
        problems.fields["base_model"] = error.detail
        base = base_models.find_base_model(session, None)
    return base, names


def _first_of_axes(session: Session, axes: Sequence[AxisRequest]) -> list[AdapterAndVersion]:
    """The first adapter that an axis names, with its version, which decides the base model."""
    default = base_models.find_base_model(session, None)
    context = AxisContext(session, "", [], default)
    for axis in axes:
        if axis.kind not in (AxisKind.ADAPTER, AxisKind.CHECKPOINT):
            continue
        try:
            values = read_axis(replace(axis, row=0), context).axis.values
        except AppError:
            continue  # said when the axis is read
        for value in values:
            if isinstance(value.value, dict):
                return [resolve(session, WeightedAdapter.model_validate(value.value))[1]]
    return []


def _read_axes(
    wanted: Sequence[AxisRequest], context: AxisContext, problems: _Problems
) -> tuple[list[Axis], list[str]]:
    axes, notes, seen = list[Axis](), list[str](), dict[tuple[str, int], str]()
    for name, each in zip(PLACES, wanted, strict=False):
        kind = AxisKind.ADAPTER if each.kind is AxisKind.CHECKPOINT else each.kind
        varies = (kind.value, each.row if each.kind.is_of_row else 0)
        if varies in seen:
            problems.fields[name] = f"The {seen[varies]} vary the same. Choose something else."
            continue
        seen[varies] = name
        try:
            read = read_axis(each, context)
        except InvalidInput as error:
            problems.fields[name] = error.detail
            continue
        axes.append(read.axis)
        if read.note:
            notes.append(f"{name.capitalize()}: {read.note}")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_CELLS and not problems.fields:
        sizes = " × ".join(f"{len(axis.values):,}" for axis in axes)
        problems.fields["columns"] = (
            f"This grid has {sizes} = {count:,} images; at most {MAX_CELLS:,} "
            "are possible. Use fewer values, or several grids."
        )
    return axes, notes


def _with_fixed(session: Session, request: RenderRequest, base: BaseModel) -> RenderRequest:
    """The request with a base model, seed and versions that stay as they are."""
    stack = []
    for used in request.adapters[:MAX_RENDER_ADAPTERS]:
        resolved, _ = resolve(session, used)
        stack.append(
            used.model_copy(update={"version": resolved.version, "weight": resolved.weight})
        )
    seed = secrets.randbelow(MAX_RANDOM_SEED) if request.seed is None else request.seed
    return replace(
        request,
        base_model=base.key,
        seed=seed,
        count=1,
        twin=False,
        weights=None,
        adapters=stack,
    )


def _plan_cells(
    session: Session, request: RenderRequest, axes: Sequence[Axis], problems: _Problems
) -> dict[int, Render]:
    """The render of each cell alone. Raises InvalidInput for the first cell that cannot be."""
    planned = {}
    for place in range(math.prod(len(axis.values) for axis in axes)):
        try:
            planned[place] = renders.plan_single(session, cell_request(request, axes, place))
        except InvalidInput as error:
            problems.fields |= _by_axis(error, axes)
            problems.check()
    return planned


def _by_axis(error: InvalidInput, axes: Sequence[Axis]) -> dict[str, str]:
    """The reasons of a cell, those of a setting that an axis varies under the axis."""
    names = {"adapter": "adapters", "checkpoint": "adapters"}
    fields = {}
    for name, reason in error.fields.items():
        varying = [
            place
            for place, axis in zip(PLACES, axes, strict=False)
            if names.get(axis.kind.value, axis.kind.value) == name
        ]
        fields[varying[0] if varying else name] = reason
    return fields


def _find_cached(session: Session, rows: Sequence[Render]) -> dict[str, Cached]:
    """The images of earlier renders and grids that equal these, by cache key."""
    wanted = {row.cache_key: row.precision for row in rows if row.precision is not None}
    found: dict[str, tuple[Cached, str]] = {}
    for chunk in in_chunks(wanted):
        there = (Render.status == JobStatus.SUCCEEDED, col(Render.deleted_at).is_(None))
        single = (
            select(Render.cache_key, Render.precision, RenderImage)
            .join(RenderImage, col(RenderImage.render_id) == col(Render.id))
            .where(col(Render.cache_key).in_(chunk), *there)
        )
        of_grid = (
            select(GridCell.cache_key, Render.precision, RenderImage)
            .join(Render, col(Render.id) == col(GridCell.render_id))
            .join(
                RenderImage,
                (col(RenderImage.render_id) == col(Render.id))
                & (col(RenderImage.index) == col(GridCell.image_index)),
            )
            .where(col(GridCell.cache_key).in_(chunk), *there)
        )
        for query in (of_grid, single):
            for key, precision, image in session.exec(query):
                if precision == wanted[key]:
                    found[key] = (Cached(image.render_id, image.index), image.sha256)
    bad = findings.problems(session, [sha256 for _, sha256 in found.values()])
    return {key: cached for key, (cached, sha256) in found.items() if sha256 not in bad}


def create_grid(session: Session, plan: GridPlan, store: BlobStore) -> Grid:
    """Store a planned grid and queue the images that are not there yet."""
    grid = Grid(
        title=plan.title,
        request=stored_request(plan.request),
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
    sources = {key: (cached.render_id, cached.index) for key, cached in plan.cached.items()}
    first: dict[str, int] = {}
    for place in sorted(cells):
        key = plan.planned[place].cache_key
        if key not in sources:
            first.setdefault(key, place)
    missing = {place: plan.planned[place] for place in first.values()}
    for batch in batches_of(missing, most=plan.batch):
        render = _queue(session, grid, plan, batch, store)
        for index, place in enumerate(batch.places):
            sources[plan.planned[place].cache_key] = (render.key, index)
    for place, cell in cells.items():
        cell.render_id, cell.image_index = sources[plan.planned[place].cache_key]
        session.add(cell)
    session.flush()


def _queue(session: Session, grid: Grid, plan: GridPlan, batch: Batch, store: BlobStore) -> Render:
    row = plan.planned[batch.places[0]]
    if batch.weights is not None:
        request = cell_request(plan.request, plan.axes, batch.places[0])
        row = renders.plan_single(session, replace(request, weights=batch.weights))
    row.draft_slot = SLOT.format(grid=grid.key, place=batch.places[0])
    row.priority = GRID_PRIORITY
    return renders.store_planned(session, row, store)


def get_grid(session: Session, grid_id: int) -> Grid:
    """Look up a grid. Raises NotFound."""
    grid = session.get(Grid, grid_id)
    if grid is None:
        raise NotFound("There is no such grid; it may have been deleted for good.")
    return grid


def cells_of(session: Session, grid_id: int) -> list[GridCell]:
    """The cells of a grid in order."""
    query = select(GridCell).where(GridCell.grid_id == grid_id)
    return list(session.exec(query.order_by(col(GridCell.place))))


def cancel_grid(session: Session, grid_id: int) -> Grid:
    """Cancel the images that are still to come, unless another grid waits for them; idempotent."""
    grid = get_grid(session, grid_id)
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
    for render in session.exec(unfinished).all():
        try:
            jobs.request_cancel(session, Render, render)
        except Conflict:
            continue  # it has just ended
    return grid


def plan_missing(session: Session, grid_id: int) -> GridPlan | None:
    """What is needed to generate the images that a grid lacks; None if it lacks none.

    Raises InvalidInput if a cell cannot be generated any more, Conflict for a deleted grid.
    """
    grid = get_grid(session, grid_id)
    if grid.deleted_at is not None:
        raise Conflict("This grid was deleted. Restore it first.")
    axes, request = list(grid.varied), read_request(grid.request)
    places = [cell.place for cell in _missing(session, grid_id)]
    if not places:
        return None
    planned = {
        place: renders.plan_single(session, cell_request(request, axes, place)) for place in places
    }
    base = base_models.find_base_model(session, request.base_model)
    cached = _find_cached(session, list(planned.values()))
    return GridPlan(request, axes, base, grid.title, [], planned, cached, None)


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
    """Delete a grid and cancel its unfinished images; it can be restored. Idempotent."""
    grid = cancel_grid(session, grid_id)
    if grid.deleted_at is None:
        grid.deleted_at = utcnow()
        session.add(grid)
        session.flush()
    return grid


def restore_grid(session: Session, grid_id: int) -> Grid:
    """Undo `delete_grid`; images that were canceled are generated by `continue_grid`."""
    grid = get_grid(session, grid_id)
    grid.deleted_at = None
    session.add(grid)
    session.flush()
    return grid


def rename_grid(session: Session, grid_id: int, title: str) -> Grid:
    """Rename a grid; an empty title is the usual one. Raises InvalidInput."""
    grid = get_grid(session, grid_id)
    title = " ".join(title.split())
    if len(title) > MAX_TITLE:
        sentence = too_long(title, MAX_TITLE)
        raise InvalidInput(sentence, fields={"title": sentence})
    grid.title = title or usual_title(grid.varied)
    session.add(grid)
    session.flush()
    return grid
