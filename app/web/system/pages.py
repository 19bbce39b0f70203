"""The theme, what runs where and how much it keeps, and the page that shows every component."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.registry.jobs.presence import WorkerPresence, present_workers
from app.registry.wakeups import QUEUES
from app.web import templates
from app.web.state import State

router = APIRouter(include_in_schema=False)
YEAR_SECONDS = 365 * 86_400


@router.post("/theme")
def theme(
    theme: Annotated[templates.Theme, Form()], back: Annotated[str, Form()] = "/"
) -> RedirectResponse:
    """Remember the theme in this browser and go back to the page."""
    response = RedirectResponse(own_address(back), status_code=303)
    response.set_cookie(
        templates.THEME_COOKIE, theme, max_age=YEAR_SECONDS, httponly=True, samesite="lax"
    )
    return response


def own_address(address: str) -> str:
    """The address when it lies on this server, else the first page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_own and address.isprintable() else "/"


@dataclass(frozen=True)
class QueueWorkers:
    """What a queue is for, and the workers that take from it now."""

    queue: str
    workers: list[WorkerPresence]


@dataclass(frozen=True)
class SystemPage:
    """What runs where, and how much is kept."""

    queues: list[QueueWorkers]
    file_count: int
    used_bytes: int
    free_bytes: int | None
    database: str
    version: str


@router.get("/system")
def system(request: Request, state: State) -> HTMLResponse:
    """Workers, storage and version."""
    with state.database.read() as session:
        present = present_workers(session)
    sizes = [blob.size for blob in state.store.list()]
    context = SystemPage(
        queues=[
            QueueWorkers(queue, [worker for worker in present if worker.queue == queue])
            for queue in QUEUES
        ],
        file_count=len(sizes),
        used_bytes=sum(sizes),
        free_bytes=state.store.free_bytes(),
        database="SQLite" if state.database.is_sqlite else "PostgreSQL",
        version=version("brushwork"),
    )
    return templates.render(request, "system/system.html", context)


@dataclass(frozen=True)
class PatternsPage:
    """The page of all components has nothing of its own."""


@router.get("/patterns")
def patterns(request: Request) -> HTMLResponse:
    """Every component of the pages, for people who build them."""
    return templates.render(request, "patterns/patterns.html", PatternsPage())
