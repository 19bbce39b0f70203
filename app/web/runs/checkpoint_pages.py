"""Pages of the checkpoints of a run: keep one, use one, compare two."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.comparison.steps import compare_steps
from app.registry.db import MAX_ID
from app.registry.runs import checkpoints
from app.web.comparison import ComparePage, compared_prompts
from app.web.state import Id, State
from app.web.templates import render
from app.web.used_version import redirect_to_used

router = APIRouter(include_in_schema=False)
Step = Annotated[int, Path(ge=1, le=MAX_ID)]
Before = Annotated[
    int | None, Query(ge=1, le=MAX_ID, description="The page of the run: steps before this one.")
]
Compared = Annotated[int | None, Query(ge=0, le=MAX_ID)]


@router.get("/runs/{run_id}/compare")
def compare(
    request: Request, run_id: Id, state: State, a: Compared = None, b: Compared = None
) -> Response:
    """Compare the samples of two steps, by default of the newest and the one before it."""
    with state.database.read() as session:
        found = compare_steps(session, run_id, a, b)
    options = [(step.step, step.option) for step in found.steps]
    return render(
        request, "runs/compare.html", ComparePage(found, options, compared_prompts(found))
    )


@router.post("/runs/{run_id}/checkpoints/{step}/keep")
def keep(run_id: Id, step: Step, state: State, before: Before = None) -> Response:
    """Keep a checkpoint, so that later ones never replace it."""
    return _mark(state, run_id, step, before, kept=True)


@router.post("/runs/{run_id}/checkpoints/{step}/release")
def release(run_id: Id, step: Step, state: State, before: Before = None) -> Response:
    """Keep a checkpoint no longer."""
    return _mark(state, run_id, step, before, kept=False)


@router.post("/runs/{run_id}/checkpoints/{step}/use")
def use(run_id: Id, step: Step, state: State, before: Before = None) -> Response:
    """Make a version of a checkpoint, then show the run again, which says so."""
    with state.database.write() as session:
        used = checkpoints.use_checkpoint(session, run_id, step)
    return redirect_to_used(used, _row(run_id, step, before), f": step {step:,}")


def _mark(state: State, run_id: int, step: int, before: int | None, *, kept: bool) -> Response:
    with state.database.write() as session:
        checkpoints.keep_checkpoint(session, run_id, step, kept=kept)
    return RedirectResponse(_row(run_id, step, before), status_code=303)


def _row(run_id: int, step: int, before: int | None) -> str:
    """The page of the run that was shown, at the row of the checkpoint."""
    page = f"?before={before}" if before else ""
    return f"/runs/{run_id}{page}#step-{step}"
