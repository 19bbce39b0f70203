"""The page that asks before a training is stopped and kept."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.registry.job_kinds.states import JobStatus
from app.registry.runs import service, stopping
from app.registry.runs.stopping import StopProposal
from app.registry.tables.runs import Run
from app.web.forms import SentForm
from app.web.state import Id, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)
CHOICES = {"yes": True, "no": False}


@dataclass(frozen=True)
class StopPage:
    """A run that trains, and what its result would become."""

    run: Run
    proposal: StopProposal


@router.get("/runs/{run_id}/stop")
def ask_stop(request: Request, run_id: Id, state: State) -> Response:
    """Ask whether the result becomes the version in use; a run that has ended is shown."""
    with state.database.read() as session:
        run = service.get_run(session, run_id)
        page = StopPage(run, stopping.propose(session, run))
    if run.state is not JobStatus.RUNNING:
        return RedirectResponse(f"/runs/{run_id}", status_code=303)
    return render(request, "runs/stop.html", page)


@router.post("/runs/{run_id}/stop")
def stop_run(run_id: Id, state: State, sent: SentForm) -> Response:
    """Stop a training and keep its result; without a choice it follows the proposal."""
    choice = CHOICES.get(str(sent.get("make_latest", "")))
    with state.database.write() as session:
        stopping.request_stop(session, run_id, make_latest=choice)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)
