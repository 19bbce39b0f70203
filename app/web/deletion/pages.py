"""Pages that ask before runs, checkpoints, renders, versions and adapters are deleted for good."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.adapters import service as adapters
from app.registry.blobs.deletion import Removal
from app.registry.deletion import runs, versions
from app.registry.state import AppState
from app.web.addresses import own_address
from app.web.deletion import confirm
from app.web.deletion.removals import (
    OfAdapter,
    OfCheckpoint,
    OfCheckpoints,
    OfRender,
    OfRun,
    OfRuns,
    Reference,
    RunIds,
)
from app.web.security import MAX_ADDRESS
from app.web.state import Id, State
from app.web.templates import redirect_with_notice

router = APIRouter(include_in_schema=False)

Back = Annotated[str, Query(max_length=MAX_ADDRESS)]
RUNS, PLAYGROUND, DELETED_ADAPTERS = "/runs", "/play", "/adapters/deleted"


@router.get("/runs/delete")
def ask_runs(
    request: Request,
    state: State,
    run: RunIds = [],  # noqa: B006  (FastAPI copies it)
    back: Back = RUNS,
) -> Response:
    """Ask before the chosen runs are deleted."""
    back = own_address(back)
    if not run:
        return redirect_with_notice(back, "Choose the runs to delete.")
    removal = partial(runs.delete_runs, run_ids=run)
    return confirm.ask(request, state, removal, back=back)


@router.post("/runs/delete")
def delete_runs(removal: OfRuns, state: State, back: Back = RUNS) -> Response:
    """Delete the chosen runs, then list the others."""
    return confirm.delete(state, removal, to=own_address(back))


@router.get("/runs/{run_id}/delete")
def ask_run(request: Request, run_id: Id, removal: OfRun, state: State) -> Response:
    """Ask before a run is deleted."""
    return confirm.ask(request, state, removal, back=f"{RUNS}/{run_id}")


@router.post("/runs/{run_id}/delete")
def delete_run(removal: OfRun, state: State) -> Response:
    """Delete a run, then list the others."""
    return confirm.delete(state, removal, to=RUNS)


@router.get("/runs/{run_id}/checkpoints/delete")
def ask_checkpoints(request: Request, run_id: Id, removal: OfCheckpoints, state: State) -> Response:
    """Ask before the checkpoints of a run are deleted."""
    return confirm.ask(request, state, removal, back=f"{RUNS}/{run_id}")


@router.post("/runs/{run_id}/checkpoints/delete")
def delete_checkpoints(run_id: Id, removal: OfCheckpoints, state: State) -> Response:
    """Delete the checkpoints of a run."""
    return confirm.delete(state, removal, to=f"{RUNS}/{run_id}")


@router.get("/runs/{run_id}/checkpoints/{step}/delete")
def ask_checkpoint(request: Request, run_id: Id, removal: OfCheckpoint, state: State) -> Response:
    """Ask before a checkpoint is deleted."""
    return confirm.ask(request, state, removal, back=f"{RUNS}/{run_id}")


@router.post("/runs/{run_id}/checkpoints/{step}/delete")
def delete_checkpoint(run_id: Id, removal: OfCheckpoint, state: State) -> Response:
    """Delete a checkpoint."""
    return confirm.delete(state, removal, to=f"{RUNS}/{run_id}")


@router.get("/renders/{render_id}/delete")
def ask_render(request: Request, render_id: Id, removal: OfRender, state: State) -> Response:
    """Ask before a render is deleted."""
    return confirm.ask(request, state, removal, back=f"/renders/{render_id}")


@router.post("/renders/{render_id}/delete")
def delete_render(removal: OfRender, state: State) -> Response:
    """Delete a render, then show the playground."""
    return confirm.delete(state, removal, to=PLAYGROUND)


@router.get("/adapters/{adapter_id}/forever")
def ask_adapter(request: Request, removal: OfAdapter, state: State) -> Response:
    """Ask before a deleted adapter is deleted for good."""
    return confirm.ask(request, state, removal, back=DELETED_ADAPTERS)


@router.post("/adapters/{adapter_id}/forever")
def delete_adapter(removal: OfAdapter, state: State) -> Response:
    """Delete a deleted adapter for good."""
    return confirm.delete(state, removal, to=DELETED_ADAPTERS)


@router.get("/adapters/{slug}/versions/{version}/delete")
def ask_version(request: Request, slug: str, version: Reference, state: State) -> Response:
    """Ask before a version of an adapter is deleted."""
    removal = _version(state, slug, version)
    return confirm.ask(request, state, removal, back=f"/adapters/{slug}?v={version}")


@router.post("/adapters/{slug}/versions/{version}/delete")
def delete_version(slug: str, version: Reference, state: State) -> Response:
    """Delete a version, then show the adapter at its current one."""
    return confirm.delete(state, _version(state, slug, version), to=f"/adapters/{slug}")


def _version(state: AppState, slug: str, version: str) -> Removal:
    with state.database.read() as session:
        adapter = adapters.adapter_by_slug(session, slug)
    return partial(versions.delete_version, adapter_id=adapter.key, reference=version)
