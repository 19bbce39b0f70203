"""The theme, the system page (workers and storage) and the page of all components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.registry.actor import current_principal
from app.registry.blobs import sweep, trash
from app.registry.blobs.report import bad_files, summary
from app.registry.blobs.trash import Amount
from app.registry.code_version import code_version
from app.registry.job_kinds.states import Queue
from app.registry.jobs.presence import present_workers
from app.registry.state import AppState
from app.registry.storage.store import StorageUnavailable
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.addresses import own_address
from app.web.forms import Text
from app.web.state import State

router = Router(include_in_schema=False)
SHOWN_BAD_FILES = 50
YEAR_SECONDS = 365 * 86_400


@router.post("/theme", Action.OPEN)
def theme(theme: Annotated[templates.Theme, Form()], back: Text = "/") -> RedirectResponse:
    """Store the theme in a cookie and return to the page."""
    response = RedirectResponse(own_address(back), status_code=303)
    response.set_cookie(
        templates.THEME_COOKIE, theme, max_age=YEAR_SECONDS, httponly=True, samesite="lax"
    )
    return response


@dataclass(frozen=True)
class StorageFigures:
    """The contents of the storage; `warning`: why sweeps only report, empty if they do not."""

    file_count: int
    used_bytes: int
    free_bytes: int | None
    in_trash: Amount
    warning: str


@router.get("/system", Action.LOOK)
def system(request: Request, state: State) -> HTMLResponse:
    """Show workers, storage and version, also while the storage does not answer.

    Of files of all people, only administrators are told.
    """
    person = current_principal()
    is_limited = person is not None and person.is_limited
    with state.database.read() as session:
        present = present_workers(session)
        bad = [] if is_limited else bad_files(session)
    storage, outage = None, ""
    try:
        storage = None if is_limited else _storage_figures(state)
    except StorageUnavailable as error:
        outage = error.detail
    return templates.render(
        request,
        "system/system.html",
        queues=[
            (queue, [worker for worker in present if worker.queue == queue]) for queue in Queue
        ],
        bad_files=bad[:SHOWN_BAD_FILES],
        bad_summary=summary(bad),
        problems=list(
            dict.fromkeys((worker.problem, worker.remedy) for worker in present if worker.problem)
        ),
        storage=storage,
        outage=outage,
        trash_days=trash.RETENTION.days,
        way_out=sweep.ADOPT_COMMAND,
        database="SQLite" if state.database.is_sqlite else "PostgreSQL",
        version=code_version(),
    )


def _storage_figures(state: AppState) -> StorageFigures:
    """Count the stored files. Raises StorageUnavailable."""
    state.store.check_readable()  # a folder that is away would look empty
    sizes = [blob.size for blob in state.store.list()]
    return StorageFigures(
        file_count=len(sizes),
        used_bytes=sum(sizes),
        free_bytes=state.store.free_bytes(),
        in_trash=trash.amount(state.store),
        warning=sweep.warning(state.database, state.store),
    )


@router.get("/patterns", Action.LOOK)
def patterns(request: Request) -> HTMLResponse:
    """Show every component of the pages, for developers."""
    return templates.render(request, "patterns/patterns.html")
