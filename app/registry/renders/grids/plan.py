"""Plans of grids: every cell checked, images that are there found, the cost estimated."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlmodel import Session, col, select

from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.base_models import service as base_models
from app.registry.blobs import findings
from app.registry.db import in_chunks
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders import drafts
from app.registry.renders.grids.axes import PLACES, AxisContext, AxisRequest, read_axis
from app.registry.renders.grids.cells import cell_request
from app.registry.renders.grids.numbers import MAX_VALUES
from app.registry.renders.plan import (
    MAX_RANDOM_SEED,
    at_usual_weight,
    plan_single,
    usual_base_of,
)
from app.registry.renders.requests import RenderRequest
from app.registry.tables.added_models import BaseModel
from app.registry.tables.axes import Axis, AxisKind
from app.registry.tables.renders import MAX_TITLE, GridCell, Render, RenderImage
from app.registry.validation import Reasons, one_line, too_long
from app.registry.wording import capitalized
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS, MAX_STRIP

MAX_CELLS = MAX_VALUES
GRID_PRIORITY = 10  # after live redraws and single images
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
    `is_continued`: of a grid that is there; `refused`: the reasons for those of its cells that
    cannot be generated any more.
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
    is_continued: bool = False
    priority: int = GRID_PRIORITY
    refused: Mapping[int, str] = field(default_factory=dict)

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


def plan_grid(session: Session, wanted: GridRequest) -> GridPlan:
    """Check a grid and estimate its cost.

    Raises InvalidInput with the reason for each bad field: `columns`, `rows`, `sheets`, `title`,
    and those of a render.
    """
    problems = Reasons()
    title = one_line(wanted.title)
    if len(title) > MAX_TITLE:
        problems.fields["title"] = too_long(title, MAX_TITLE)
    if not wanted.axes or len(wanted.axes) > len(PLACES):
        problems.fields["columns"] = "Choose what the columns, rows or sheets vary: one to three."
        problems.check()
    base, names = _base_of(session, wanted, problems)
    context = AxisContext(session, wanted.request.prompt, names, base)
    axes, notes = _read_axes(wanted.axes, context, problems)
    problems.check()
    return plan_axes(session, wanted.request, axes, base, title=title, notes=notes)


def plan_axes(
    session: Session,
    wanted: RenderRequest,
    axes: list[Axis],
    base: BaseModel,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> GridPlan:
    """Plan the cells of axes that were read. Raises InvalidInput like `plan_grid`."""
    request = _with_fixed(session, wanted, base)
    planned = _plan_cells(session, request, axes, Reasons())
    request = _as_read(request, planned[0])
    notes = [*notes, *([planned[0].note] if planned[0].note else [])]
    each = drafts.expected_seconds(session, base, steps=1, width=1, height=1)
    cached = find_cached(session, list(planned.values()))
    new = {row.cache_key: row for row in planned.values() if row.cache_key not in cached}
    dearest = max(row.all_steps * row.width * row.height for row in planned.values())
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
        seconds=drafts.seconds_of(session, new.values()),
        batch=batch,
    )


def usual_title(axes: Sequence[Axis]) -> str:
    """A title made of what the axes vary, such as “Weight × prompt”."""
    words = " × ".join(axis.kind.label.lower() for axis in axes)
    return capitalized(words)


def _base_of(
    session: Session, wanted: GridRequest, problems: Reasons
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
    is_swap = (AxisKind.ADAPTER, AxisKind.CHECKPOINT)
    swapped = {axis.row: axis.kind for axis in wanted.axes if axis.kind in is_swap}
    if swapped and not names:
        names = [""]
    names = ["" if swapped.get(row) is AxisKind.ADAPTER else n for row, n in enumerate(names)]
    own = usual_base_of(session, made) if wanted.request.base_model is None else None
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
    wanted: Sequence[AxisRequest], context: AxisContext, problems: Reasons
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
        resolved = at_usual_weight(resolve(session, used)[0], used, base)
        stack.append(
            used.model_copy(update=resolved.model_dump(include={"adapter_id", "version", "weight"}))
        )
    seed = secrets.randbelow(MAX_RANDOM_SEED) if request.seed is None else request.seed
    fixed = {"base_model": base.key, "seed": seed, "adapters": stack}
    one_image = {"count": 1, "twin": False, "weights": None}
    return request.model_copy(update=fixed | one_image)


def _as_read(request: RenderRequest, first: Render) -> RenderRequest:
    """The request with its numbers as the first cell has them: a form sends texts."""
    names = {"steps", "guidance", "width", "height", "sampler", "seed"}
    names |= {name for name in ("clip_skip", "strength") if getattr(request, name) is not None}
    return request.model_copy(update=first.model_dump(include=names))


def _plan_cells(
    session: Session, request: RenderRequest, axes: Sequence[Axis], problems: Reasons
) -> dict[int, Render]:
    """The render of each cell alone. Raises InvalidInput for the first cell that cannot be."""
    planned = {}
    for place in range(math.prod(len(axis.values) for axis in axes)):
        try:
            planned[place] = plan_single(session, cell_request(request, axes, place))
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


def find_cached(session: Session, rows: Sequence[Render]) -> dict[str, Cached]:
    """The images of earlier renders and grids of their owner that equal these, by cache key."""
    owners = {row.owner_id for row in rows}
    wanted = {row.cache_key: row.precision for row in rows if row.precision is not None}
    found: dict[str, tuple[Cached, str]] = {}
    for chunk in in_chunks(wanted):
        there = (
            Render.status == JobStatus.SUCCEEDED,
            col(Render.deleted_at).is_(None),
            col(Render.owner_id).in_(owners),
        )
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
