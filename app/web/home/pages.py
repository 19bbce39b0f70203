"""The home page: an introduction for new users, else recent work; and the status strip."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from app.registry.adapters import service as adapters
from app.registry.adapters.service import AdapterSummary
from app.registry.datasets import service as datasets
from app.registry.datasets import uploads
from app.registry.datasets.service import DatasetSummary
from app.registry.errors import NotFound
from app.registry.runs.active import ActiveRuns, active_runs
from app.registry.uploads import UploadedFile
from app.web import templates
from app.web.state import State
from worker.core.starter import EXAMPLE, EXAMPLE_TRIGGER

router = APIRouter(include_in_schema=False)

EXAMPLE_NAME = "Chalkboard"
SHOWN_EXAMPLES = ("fox", "sailboat", "cactus", "teapot", "butterfly", "pineapple")
SHOWN_ADAPTERS = 4
SHOWN_DATASETS = 4
EXAMPLE_CACHE = "public, max-age=86400"


@dataclass(frozen=True)
class HomePage:
    """Recent runs, adapters and datasets; without any, an introduction."""

    is_new: bool
    examples: tuple[str, ...]
    active: ActiveRuns
    adapters: list[AdapterSummary]
    datasets: list[DatasetSummary]


@dataclass(frozen=True)
class ActiveRunsFragment:
    """The first running and queued runs."""

    active: ActiveRuns


@dataclass(frozen=True)
class StatusStripFragment:
    """The status strip in the top bar."""

    running: templates.RunningStrip | None


@router.get("/")
def home(request: Request, state: State) -> HTMLResponse:
    """Show the home page."""
    with state.database.read() as session:
        active = active_runs(session)
        newest = adapters.list_adapters(session, adapters.Filter()).items[:SHOWN_ADAPTERS]
        sets = datasets.list_datasets(session, limit=SHOWN_DATASETS)
    is_new = not (active.shown or newest or sets)
    context = HomePage(is_new, SHOWN_EXAMPLES, active, newest, sets)
    return templates.render(request, "home/home.html", context)


@router.get("/home/runs")
def home_runs(state: State) -> HTMLResponse:
    """The runs on the home page, polled while one is active."""
    with state.database.read() as session:
        active = active_runs(session)
    return templates.render_fragment("home/_runs.html", ActiveRunsFragment(active))


@router.get("/running")
def running(request: Request) -> HTMLResponse:
    """The status strip in the top bar, polled."""
    return templates.render_fragment(
        "_running.html", StatusStripFragment(templates.running_strip(request))
    )


@router.post("/example")
def add_example(state: State) -> RedirectResponse:
    """Create the example dataset through the normal upload, unless it exists."""
    with state.database.write() as session:
        known = datasets.list_datasets(session, q=EXAMPLE_NAME)
        found = next((row for row in known if row.dataset.name == EXAMPLE_NAME), None)
        dataset = (
            found.dataset
            if found
            else datasets.create_dataset(session, EXAMPLE_NAME, trigger_word=EXAMPLE_TRIGGER)
        )
    if found is None or not found.image_count:
        files = [path for path in sorted(EXAMPLE.iterdir()) if path.suffix in (".webp", ".jsonl")]
        uploads.receive(
            state, dataset.key, [UploadedFile(filename=path.name, content=path) for path in files]
        )
    return RedirectResponse(f"/datasets/{dataset.slug}", status_code=303)


@router.get("/example/{name}.webp")
def example_picture(name: str) -> FileResponse:
    """An image of the example style, for the introduction."""
    path = EXAMPLE / f"{name}.webp"
    if not re.fullmatch(r"[a-z0-9-]{1,60}", name) or not path.is_file():
        raise NotFound("There is no such image.")
    return FileResponse(path, media_type="image/webp", headers={"cache-control": EXAMPLE_CACHE})
