"""REST: grids: what requests hold, what is answered, and the routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from fastapi import Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.registry.db import Session
from app.registry.people.whose import only
from app.registry.renders.grids import plan as plans
from app.registry.renders.grids import service, views, winner
from app.registry.renders.grids.axes import MAX_AXIS_TEXT, PLACES, AxisRequest
from app.registry.renders.grids.cells import read_request
from app.registry.renders.grids.plan import MAX_CELLS, GridPlan, GridRequest
from app.registry.renders.grids.winner import WinnerAction
from app.registry.tables.axes import AxisKind
from app.registry.tables.renders import MAX_TITLE, Grid
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer, image_urls
from app.web.openapi import file_docs
from app.web.playground.api import RenderIn, RenderOut, render_out
from app.web.playground.grids.pages import require_shown, sheet_response
from app.web.problems import CANCEL, OF_BLIND_TEST, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part, Whose
from app.web.state import Id, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.inference.config import MAX_PROMPT_CHARACTERS
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

router = Router(tags=["grids"], dependencies=[Depends(require_shown)])

NOT_IN_GRIDS = ("count", "twin", "weights", "draft_slot")
LARGEST_VALUE = 10**12 - 1
AxisText = Annotated[str, Field(max_length=MAX_AXIS_TEXT)]
Bounds = Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE)
AxisEntry = (
    Annotated[int, Bounds]
    | Annotated[float, Bounds]
    | Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
)
AxisList = Annotated[list[AxisEntry], Field(min_length=1, max_length=MAX_CELLS)]
Title = Annotated[str, StringConstraints(max_length=MAX_TITLE)]


class AxisIn(DocumentedModel):
    """The setting that columns, rows or sheets vary."""

    model_config = ConfigDict(extra="forbid")
    kind: AxisKind = Field(description="The setting that is varied.")
    values: AxisText | AxisList
    """A list of values, or text with values and ranges, such as `0.5, 0.75` or `0.25 to 1.25 by
    0.25`; prompts one a line, `{a|b}` for alternatives; adapters as `ink@best:0.8` or `search:
    words`; checkpoints as `12` (of run 12) or `12: 100, 200`."""
    adapter: int = Field(0, ge=0, le=MAX_RENDER_ADAPTERS)
    """For weights, adapters and checkpoints: which adapter of the request is varied, counted from
    0. One more than there are adds one."""
    labels: list[AxisText] = Field(
        default_factory=list, max_length=MAX_CELLS, json_schema_extra={"readOnly": True}
    )
    """Of an answer: each value in words; ignored in a request."""

    @property
    def text(self) -> str:
        """The values as text, of a list one a line."""
        if isinstance(self.values, str):
            return self.values
        return "".join(f"{' '.join(str(value).split())}\n" for value in self.values)


class GridIn(DocumentedModel):
    """A grid: a request with one to three settings varied."""

    model_config = example(
        request={"prompt": "a castle", "seed": 7, "adapters": [{"id": 1}]},
        columns={"kind": "weight", "values": "0.25 to 1.25 by 0.25"},
        rows={"kind": "prompt", "values": "a fox\na {red|blue} rocket"},
    )
    request: RenderIn
    """What all cells share, as for `POST /renders`; without `count`, `twin`, `weights` and
    `draft_slot`."""
    columns: AxisIn = Field(description="What the columns vary.")
    rows: AxisIn | None = Field(None, description="What the rows vary.")
    sheets: AxisIn | None = Field(None, description="What the sheets vary; needs rows.")
    title: Title = Field("", description="Its title; empty: what it varies.")

    @field_validator("request")
    @classmethod
    def _only_what_cells_share(cls, request: RenderIn) -> RenderIn:
        if request.count != 1 or any(getattr(request, name) for name in NOT_IN_GRIDS[1:]):
            raise ValueError(f"Leave out {', '.join(NOT_IN_GRIDS)}: a cell is one image.")
        return request

    @field_validator("sheets")
    @classmethod
    def _sheets_have_rows(cls, sheets: AxisIn | None, info: object) -> AxisIn | None:
        if sheets is not None and getattr(info, "data", {}).get("rows") is None:
            raise ValueError("Sheets need rows. Vary this in the rows.")
        return sheets

    def wanted(self) -> GridRequest:
        """The grid for the service."""
        axes = [axis for axis in (self.columns, self.rows, self.sheets) if axis is not None]
        wanted = [AxisRequest(axis.kind, axis.text, axis.adapter) for axis in axes]
        return GridRequest(self.request, wanted, self.title)


class GridEstimate(Answer):
    """The cost of a grid, before it is made."""

    cells: int = Field(description="Number of cells.")
    images: int = Field(description="Number of images; equal cells have one.")
    cached_images: int = Field(description="Images that exist already.")
    seconds: float | None
    """About how long the others take; null while the speed is not known."""
    columns: list[str] = Field(description="The values of the columns.")
    rows: list[str] = Field(description="The values of the rows.")
    sheets: list[str] = Field(description="The values of the sheets.")
    notes: list[str] = Field(description="What was changed, such as duplicates left out.")


class CellOut(Answer):
    """A cell of a grid."""

    place: int = Field(description="Its number, row by row, sheet by sheet, from 0.")
    column: int = Field(description="Its column, from 0.")
    row: int = Field(description="Its row, from 0.")
    sheet: int = Field(description="Its sheet, from 0.")
    status: views.CellState = Field(description="As of a job, or `deleted`.")
    url: str | None = Field(description="Address of the PNG, once it is there.")
    thumbnail_url: str | None = Field(description="Address of a small WebP of it.")
    render_id: int | None = Field(description="The render that makes or made its image.")
    error: str | None = Field(description="Why it failed, as a sentence.")


class GridSummary(OwnedAnswer):
    """A grid in a list."""

    id: int = Field(description="Id of the grid.")
    title: str = Field(description="Its title.")
    cells: int = Field(description="Number of cells.")
    done: int = Field(description="Number of cells with an image.")
    created_at: datetime = Field(description="When it was made.")
    deleted_at: datetime | None = Field(description="When it was deleted; it can be restored.")


class GridOut(GridSummary):
    """A grid with its cells."""

    address: ClassVar[str] = "/api/v1/grids/{id}"
    status: views.GridState = Field(description="`incomplete`: cells have no image and get none.")
    seconds_left: float | None
    """About how long the rest takes; null if nothing is left or that is not known."""
    winner: int | None = Field(description="Number of the chosen cell.")
    request: RenderIn = Field(description="What all cells share.")
    columns: AxisIn = Field(description="What the columns vary.")
    rows: AxisIn | None = Field(description="What the rows vary.")
    sheets: AxisIn | None = Field(description="What the sheets vary.")
    images: list[CellOut] = Field(description="Its cells in order.")


class RefusedCell(BaseModel):
    """A cell that cannot be generated any more."""

    place: int = Field(description="Its number.")
    reason: str = Field(description="Why, as a sentence.")


class ContinuedGrid(GridOut):
    """A grid whose missing images are generated."""

    refused: list[RefusedCell]
    """Cells that lack their image and cannot be generated any more, such as those of a deleted
    adapter."""


class GridPatch(BaseModel):
    """The change of a grid."""

    model_config = example(title="Castles")
    title: Title = Field(description="Its title; empty: what it varies.")


class WinnerIn(DocumentedModel):
    """The cell that is chosen, and what it changes."""

    model_config = example(place=3, action="weight")
    place: int = Field(ge=0, le=399, description="Number of the cell.")
    action: WinnerAction = WinnerAction.NONE
    """`weight`: it becomes the usual weight; `best`: the version gets that alias; `cover`: the
    image becomes the cover; `none`: the cell is only marked."""


class WinnerOut(BaseModel):
    """The chosen cell."""

    winner: int = Field(description="Number of the cell.")
    told: str = Field(description="What was changed, as a sentence.")


def estimate_out(plan: GridPlan) -> GridEstimate:
    """The cost of a planned grid, as the answer has it."""
    labels = [list(axis.labels) for axis in plan.axes] + [[], [], []]
    return GridEstimate.of(
        plan,
        cached_images=plan.images - plan.new_images,
        columns=labels[0],
        rows=labels[1],
        sheets=labels[2],
    )


def grid_out(session: Session, grid: Grid) -> GridOut:
    """A grid as it is now, as the answer has it."""
    view = views.grid_view(session, grid)
    axes: list[AxisIn | None] = [
        AxisIn(kind=each.kind, values=each.text, labels=list(each.labels), adapter=each.row)
        for each in view.axes
    ]
    axes += [None] * (len(PLACES) - len(axes))
    return GridOut.of(
        grid,
        cells=len(view.cells),
        done=view.done,
        status=view.state,
        seconds_left=view.seconds,
        request=RenderIn.of(read_request(grid.request)),
        **dict(zip(PLACES, axes, strict=True)),
        images=[_cell_out(cell) for cell in view.cells],
    )


def _cell_out(cell: views.CellView) -> CellOut:
    return CellOut.of(
        cell,
        status=cell.state,
        **image_urls(cell.image.sha256 if cell.image else None),
        render_id=cell.render.key if cell.render else None,
        error=cell.error or None,
    )


BAD_REQUEST = problems({404: "There is no such base model, adapter or version."})
NO_CELL_POSSIBLE = "None of them can be generated any more: an adapter or the base model is gone."
Place = Annotated[int, Path(ge=0, le=399)]


@router.post("/grids/estimate", Action.LOOK, responses=BAD_REQUEST)
def estimate_grid(body: GridIn, session: Reading) -> GridEstimate:
    """Estimate a grid.

    Nothing is stored or queued; what is wrong is said as for creating it.
    """
    return estimate_out(plans.plan_grid(session, body.wanted()))


@router.post("/grids", Action.DRAW, status_code=202, responses=BAD_REQUEST)
def create_grid(body: GridIn, state: State) -> GridOut:
    """Create a grid.

    The answer comes at once; poll the grid for its images. At most 400 cells.
    """
    with state.database.read() as session:
        plan = plans.plan_grid(session, body.wanted())
    with state.database.write() as session:
        return grid_out(session, service.create_grid(session, plan, state.store))


@router.get("/grids", Action.LOOK)
def list_grids(
    session: Reading,
    part: Part,
    deleted: Annotated[bool, Query(description="Those that were deleted, not the others.")] = False,
    whose: Whose = None,
) -> list[GridSummary]:
    """List grids, newest first."""
    with only(session, Grid, whose):
        page = views.list_grids(session, deleted=deleted, size=part.size, before=part.after)
    rows = part.cut(page.items, lambda row: row.grid.key, total=page.total)
    return [GridSummary.of(row.grid, cells=row.cells, done=row.done) for row in rows]


@router.get("/grids/{grid_id}", Action.LOOK, responses=OF_BLIND_TEST)
def get_grid(grid_id: Id, session: Reading) -> GridOut:
    """Get a grid with the state of each cell."""
    return grid_out(session, service.get_grid(session, grid_id))


@router.patch("/grids/{grid_id}", Action.EDIT, responses=OF_BLIND_TEST)
def change_grid(grid_id: Id, body: GridPatch, session: Writing) -> GridOut:
    """Rename a grid."""
    return grid_out(session, service.rename_grid(session, grid_id, body.title))


@router.post("/grids/{grid_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_grid(grid_id: Id, session: Writing) -> GridOut:
    """Cancel the images of a grid that are still to come.

    Those that are there stay. Canceling twice is no error.
    """
    return grid_out(session, service.cancel_grid(session, grid_id))


@router.post(
    "/grids/{grid_id}/continue",
    Action.CONTROL,
    status_code=202,
    responses=problems({409: "The grid was deleted.", 422: NO_CELL_POSSIBLE}),
)
def continue_grid(grid_id: Id, state: State) -> ContinuedGrid:
    """Generate the images that a grid lacks.

    That is, those that were canceled, failed or were deleted. Cells that cannot be generated any
    more are named, and the others are generated.
    """
    with state.database.read() as session:
        plan = service.plan_missing(session, grid_id)
    with state.database.write() as session:
        if plan is not None:
            service.continue_grid(session, grid_id, plan, state.store)
        grid = grid_out(session, service.get_grid(session, grid_id))
    refused = plan.refused.items() if plan else ()
    return ContinuedGrid(
        **dict(grid), refused=[RefusedCell(place=at, reason=why) for at, why in refused]
    )


@router.post(
    "/grids/{grid_id}/winner",
    Action.EDIT,
    responses=problems({409: "The cell has no image, or its image no adapter."}),
)
def choose_winner(grid_id: Id, body: WinnerIn, session: Writing) -> WinnerOut:
    """Choose a cell.

    Its weight becomes the usual one, its version gets the alias `best`, or its image becomes the
    cover. A checkpoint becomes a version first, as by `POST /runs/{id}/checkpoints/{step}/use`.
    """
    told = winner.choose_winner(session, grid_id, body.place, body.action)
    return WinnerOut(winner=body.place, told=told)


@router.post(
    "/grids/{grid_id}/cells/{place}/keep",
    Action.DRAW,
    responses=problems({409: "The cell has no image."}),
)
def keep_cell(grid_id: Id, place: Place, session: Writing) -> RenderOut:
    """Keep the image of a cell.

    It is listed as a render of its own, which stays when the grid is deleted.
    """
    return render_out(session, winner.keep_cell(session, grid_id, place))


@router.get(
    "/grids/{grid_id}/sheet",
    Action.LOOK,
    response_class=Response,
    responses=file_docs("image/png") | OF_BLIND_TEST,
)
def get_grid_sheet(
    grid_id: Id,
    state: State,
    sheet: Annotated[int, Query(ge=0, le=399, description="Which sheet, from 0.")] = 0,
) -> Response:
    """Download a sheet as one PNG with labels.

    Its cells are at most 512 pixels, and smaller in large grids. Cells without an image are
    outlined.
    """
    return sheet_response(state, grid_id, sheet)
