"""REST: grids."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.registry.renders.grids import plan as plans
from app.registry.renders.grids import service, views, winner
from app.web.openapi import file_docs
from app.web.playground.api import RenderOut, render_out
from app.web.playground.grids.bodies import (
    ContinuedGrid,
    GridEstimate,
    GridIn,
    GridOut,
    GridPatch,
    GridSummary,
    RefusedCell,
    WinnerIn,
    WinnerOut,
    estimate_out,
    grid_out,
)
from app.web.playground.grids.pages import sheet_response
from app.web.problems import CANCEL, problems
from app.web.rest.lists import Part
from app.web.state import Id, Reading, SessionRoute, State, Writing

router = APIRouter(tags=["grids"], route_class=SessionRoute)

BAD_REQUEST = problems({404: "There is no such base model, adapter or version."})
NO_CELL_POSSIBLE = "None of them can be generated any more: an adapter or the base model is gone."
Place = Annotated[int, Path(ge=0, le=399)]


@router.post("/grids/estimate", responses=BAD_REQUEST)
def estimate_grid(body: GridIn, session: Reading) -> GridEstimate:
    """Estimate a grid.

    Nothing is stored or queued; what is wrong is said as for creating it.
    """
    return estimate_out(plans.plan_grid(session, body.wanted()))


@router.post("/grids", status_code=202, responses=BAD_REQUEST)
def create_grid(body: GridIn, state: State) -> GridOut:
    """Create a grid.

    The answer comes at once; poll the grid for its images. At most 400 cells.
    """
    with state.database.read() as session:
        plan = plans.plan_grid(session, body.wanted())
    with state.database.write() as session:
        return grid_out(session, service.create_grid(session, plan, state.store))


@router.get("/grids")
def list_grids(
    session: Reading,
    part: Part,
    deleted: Annotated[bool, Query(description="Those that were deleted, not the others.")] = False,
) -> list[GridSummary]:
    """List grids, newest first."""
    page = views.list_grids(session, deleted=deleted, size=part.size, before=part.after)
    rows = part.cut(page.items, lambda row: row.grid.key, total=page.total)
    return [GridSummary.of(row.grid, cells=row.cells, done=row.done) for row in rows]


@router.get("/grids/{grid_id}")
def get_grid(grid_id: Id, session: Reading) -> GridOut:
    """Get a grid with the state of each cell."""
    return grid_out(session, service.get_grid(session, grid_id))


@router.patch("/grids/{grid_id}")
def change_grid(grid_id: Id, body: GridPatch, session: Writing) -> GridOut:
    """Rename a grid."""
    return grid_out(session, service.rename_grid(session, grid_id, body.title))


@router.post("/grids/{grid_id}/cancel", **CANCEL)
def cancel_grid(grid_id: Id, session: Writing) -> GridOut:
    """Cancel the images of a grid that are still to come.

    Those that are there stay. Canceling twice is no error.
    """
    return grid_out(session, service.cancel_grid(session, grid_id))


@router.post(
    "/grids/{grid_id}/continue",
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
    responses=problems({409: "The cell has no image, or its image no adapter."}),
)
def choose_winner(grid_id: Id, body: WinnerIn, session: Writing) -> WinnerOut:
    """Choose a cell.

    Its weight becomes the usual one, its version gets the alias `best`, or its image becomes the
    cover. A checkpoint becomes a version first, as by `POST /runs/{id}/checkpoints/{step}/use`.
    """
    chosen = winner.choose_winner(session, grid_id, body.place, body.action)
    return WinnerOut(winner=body.place, told=chosen.told)


@router.post(
    "/grids/{grid_id}/cells/{place}/keep",
    responses=problems({409: "The cell has no image."}),
)
def keep_cell(grid_id: Id, place: Place, session: Writing) -> RenderOut:
    """Keep the image of a cell.

    It is listed as a render of its own, which stays when the grid is deleted.
    """
    return render_out(session, winner.keep_cell(session, grid_id, place))


@router.get(
    "/grids/{grid_id}/sheet",
    response_class=Response,
    responses=file_docs("image/png"),
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
