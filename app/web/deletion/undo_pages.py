"""Forms that delete runs, checkpoints and versions, with Undo, and the list of what is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters.service import adapter_by_slug, get_adapter
from app.registry.deletion import runs, versions
from app.registry.deletion.lists import DeletedKind, DeletedThing, list_things
from app.registry.paging import Page, find_page
from app.registry.wording import plural
from app.web.addresses import MAX_ADDRESS, own_address
from app.web.deletion.api import FOREVER
from app.web.deletion.removals import Reference, Step
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.state import Id, RunIds, Slug, State
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)
Back = Annotated[str, Query(max_length=MAX_ADDRESS)]


@dataclass(frozen=True)
class DeletedPage:
    """The deleted things of a kind, the last deleted first."""

    kind: DeletedKind
    kinds: list[DeletedKind]
    found: Page[DeletedThing]
    forever: str


@router.get("/storage/deleted")
def list_deleted(
    request: Request,
    state: State,
    kind: DeletedKind = DeletedKind.RUNS,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """List deleted runs, versions or checkpoints; a number past the end shows the last page."""
    with state.database.read() as session:
        found = find_page(lambda number: list_things(session, kind, page=number), page)
    context = DeletedPage(kind, list(DeletedKind), found, FOREVER)
    return render(request, "deletion/deleted.html", context)


@router.post("/runs/delete")
def delete_runs(
    state: State,
    sent: SentForm,
    run: RunIds = [],  # noqa: B006  (FastAPI copies it)
    back: Back = "",
) -> Response:
    """Delete the run of the address, or the chosen ones, with Undo."""
    back = own_address(back or str(sent.get("back", "/runs")))
    keys = run or [key for one in sent.getlist("run") if (key := as_id(str(one)))]
    if not keys:
        return redirect_with_notice(back, "Choose the runs to delete.")
    with state.database.write() as session:
        gone, refused = runs.discard_runs(session, keys)
    words = f"“{gone[0].name}” was" if len(gone) == 1 else f"{plural(len(gone), 'run')} were"
    text = " ".join((f"{words} deleted.", *refused))
    undo = urlencode([("run", one.key) for one in gone] + [("back", back)])
    return redirect_with_notice(back, text, undo=f"/runs/restore?{undo}")


@router.post("/runs/restore")
def restore_runs(state: State, run: RunIds, back: Back = "/runs") -> Response:
    """Restore runs."""
    with state.database.write() as session:
        for key in run:
            runs.restore_run(session, key)
    return RedirectResponse(own_address(back), status_code=303)


@router.post("/runs/{run_id}/restore")
def restore_run(run_id: Id, state: State) -> Response:
    """Restore a run."""
    with state.database.write() as session:
        runs.restore_run(session, run_id)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


@router.post("/runs/{run_id}/checkpoints/{step}/delete")
def delete_checkpoint(run_id: Id, step: Step, state: State) -> Response:
    """Delete a checkpoint of a run, with Undo."""
    with state.database.write() as session:
        runs.discard_checkpoint(session, run_id, step)
    undo = f"/runs/{run_id}/checkpoints/{step}/restore"
    text = f"The checkpoint at step {step:,} was deleted."
    return redirect_with_notice(f"/runs/{run_id}", text, undo=undo)


@router.post("/runs/{run_id}/checkpoints/{step}/restore")
def restore_checkpoint(run_id: Id, step: Step, state: State) -> Response:
    """Restore a checkpoint."""
    with state.database.write() as session:
        runs.restore_checkpoint(session, run_id, step)
    return RedirectResponse(f"/runs/{run_id}#step-{step}", status_code=303)


@router.post("/adapters/{slug}/versions/{version}/delete")
def delete_version(slug: Slug, version: Reference, state: State) -> Response:
    """Delete a version of an adapter, with Undo."""
    with state.database.write() as session:
        adapter = adapter_by_slug(session, slug)
        number = versions.discard_version(session, adapter.key, version).version
    undo = f"/adapters/{adapter.key}/versions/{number}/restore"
    return redirect_with_notice(f"/adapters/{slug}", f"Version {number} was deleted.", undo=undo)


@router.post("/adapters/{adapter_id}/versions/{version}/restore")
def restore_version(adapter_id: Id, version: Id, state: State) -> Response:
    """Restore a version of an adapter."""
    with state.database.write() as session:
        versions.restore_version(session, adapter_id, version)
        slug = get_adapter(session, adapter_id).slug
    return RedirectResponse(f"/adapters/{slug}?v={version}", status_code=303)
