"""The home page: an introduction for new users, else recent work; and the status strip."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.registry.adapters import service as adapters
from app.registry.adapters.service import AdapterSummary
from app.registry.datasets import service as datasets
from app.registry.datasets.service import DatasetSummary
from app.registry.job_kinds.states import JobStatus
from app.registry.runs.active import ActiveRuns, active_runs, ended_runs
from app.registry.runs.epochs import Epochs, epochs_of_runs
from app.registry.runs.listing import newest_samples
from app.registry.runs.service import STATUS_PHRASES
from app.registry.tables.runs import RUINED, Run, Sample
from app.registry.wording import plural
from app.web import templates
from app.web.datasets.example_pages import ExampleOffer, example_offers
from app.web.state import State

router = APIRouter(include_in_schema=False)

SHOWN_ADAPTERS = 4
SHOWN_DATASETS = 4
SHOWN_REASON = 200  # characters of an error that a notification repeats


@dataclass(frozen=True)
class HomePage:
    """Recent runs, adapters and datasets; without any, an introduction."""

    is_new: bool
    examples: list[ExampleOffer]
    active: ActiveRuns
    epochs: dict[int, Epochs]
    samples: dict[int, list[Sample]]
    adapters: list[AdapterSummary]
    datasets: list[DatasetSummary]


@router.get("/")
def home(request: Request, state: State) -> HTMLResponse:
    """Show the home page."""
    with state.database.read() as session:
        active = active_runs(session)
        epochs = epochs_of_runs(session, active.shown)
        samples = newest_samples(session, [run.key for run in active.shown])
        newest = adapters.list_adapters(session, adapters.Filter()).items[:SHOWN_ADAPTERS]
        sets = datasets.list_datasets(session, limit=SHOWN_DATASETS)
    is_new = not (active.shown or newest or sets)
    context = HomePage(is_new, example_offers(), active, epochs, samples, newest, sets)
    return templates.render(request, "home/home.html", context)


@router.get("/home/runs")
def home_runs(state: State) -> HTMLResponse:
    """The runs on the home page, polled while one is active."""
    with state.database.read() as session:
        active = active_runs(session)
        epochs = epochs_of_runs(session, active.shown)
        samples = newest_samples(session, [run.key for run in active.shown])
    return templates.render_fragment(
        "home/_runs.html", active=active, epochs=epochs, samples=samples
    )


@router.get("/running")
def running(request: Request, state: State, ended: bool = False) -> HTMLResponse:
    """The status strip in the top bar, polled; browsers with notifications ask for `ended`."""
    notices = []
    if ended:
        with state.database.read() as session:
            notices = [end_notice(run).as_json() for run in ended_runs(session)]
    running = templates.running_strip(request)
    return templates.render_fragment("_running.html", running=running, ended=notices)


@dataclass(frozen=True)
class EndNotice:
    """One end of one run; browsers remember by `key` which ones they have shown."""

    key: str
    title: str
    text: str
    href: str

    def as_json(self) -> dict[str, str]:
        """The notice as the script of the pages reads it."""
        return asdict(self)


def end_notice(run: Run) -> EndNotice:
    """The notice of a run that has ended: its outcome and where to see it."""
    steps = plural(run.step, "step")
    title = f"“{run.name}” {STATUS_PHRASES[JobStatus(run.status)]}"
    key, href = f"{run.key} {run.finished_at}", f"/runs/{run.key}"
    if run.outcome == RUINED:
        return EndNotice(key, f"{title}, ruined", (run.outcome_reason or "")[:SHOWN_REASON], href)
    text = {
        JobStatus.SUCCEEDED: f"Trained {steps}.",
        JobStatus.FAILED: (run.error or "")[:SHOWN_REASON],
        JobStatus.CANCELED: f"It had trained {steps}.",
    }[JobStatus(run.status)]
    return EndNotice(key, title, text, href)
