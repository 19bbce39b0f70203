"""The theme, the system page (workers and storage) and the page of all components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.registry.code_version import code_version
from app.registry.jobs.presence import WorkerPresence, present_workers
from app.registry.jobs.queues import Queue
from app.web import templates
from app.web.state import State

router = APIRouter(include_in_schema=False)
YEAR_SECONDS = 365 * 86_400


@router.post("/theme")
def theme(
    theme: Annotated[templates.Theme, Form()], back: Annotated[str, Form()] = "/"
) -> RedirectResponse:
    """Store the theme in a cookie and return to the page."""
    response = RedirectResponse(own_address(back), status_code=303)
    response.set_cookie(
        templates.THEME_COOKIE, theme, max_age=YEAR_SECONDS, httponly=True, samesite="lax"
    )
    return response


def own_address(address: str) -> str:
    """The address if it is on this server, else the home page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_own and address.isprintable() else "/"


@dataclass(frozen=True)
class QueueWorkers:
    """A queue and the workers that serve it now."""

    queue: str
    workers: list[WorkerPresence]


@dataclass(frozen=True)
class SystemPage:
    """Workers and storage; `problems` are sentences, each with a command or an empty string."""

    queues: list[QueueWorkers]
    problems: list[tuple[str, str]]
    file_count: int
    used_bytes: int
    free_bytes: int | None
    database: str
    version: str


@router.get("/system")
def system(request: Request, state: State) -> HTMLResponse:
    """Show workers, storage and version."""
    with state.database.read() as session:
        present = present_workers(session)
    sizes = [blob.size for blob in state.store.list()]
    context = SystemPage(
        queues=[
            QueueWorkers(queue, [worker for worker in present if worker.queue == queue])
            for queue in Queue
        ],
        problems=list(
            dict.fromkeys((worker.problem, worker.remedy) for worker in present if worker.problem)
        ),
        file_count=len(sizes),
        used_bytes=sum(sizes),
        free_bytes=state.store.free_bytes(),
        database="SQLite" if state.database.is_sqlite else "PostgreSQL",
        version=code_version(),
    )
    return templates.render(request, "system/system.html", context)


@dataclass(frozen=True)
class PatternsPage:
    """The page of all components needs no variables."""


@router.get("/patterns")
def patterns(request: Request) -> HTMLResponse:
    """Show every component of the pages, for developers."""
    return templates.render(request, "patterns/patterns.html", PatternsPage())
