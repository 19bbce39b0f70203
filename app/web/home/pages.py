"""The home page: an introduction for new users, else recent work; and the status strip."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from app.registry.adapters import service as adapters
from app.registry.datasets import service as datasets
from app.registry.job_kinds.states import JobStatus
from app.registry.runs.epochs import epochs_of_runs
from app.registry.runs.listing import newest_samples
from app.registry.runs.service import STATUS_PHRASES, active_runs, ended_runs
from app.registry.tables.runs import RUINED, Run
from app.registry.wording import plural
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.example_pages import example_offers
from app.web.state import Reading

router = Router(include_in_schema=False)

SHOWN_ADAPTERS = 4
SHOWN_DATASETS = 4
SHOWN_REASON = 200  # characters of an error that a notification repeats


@router.get("/", Action.LOOK)
def home(request: Request, session: Reading) -> HTMLResponse:
    """Show the home page."""
    active = active_runs(session)
    epochs = epochs_of_runs(session, active.shown)
    samples = newest_samples(session, [run.key for run in active.shown])
    newest = adapters.list_adapters(session, adapters.Filter()).items[:SHOWN_ADAPTERS]
    sets = datasets.list_datasets(session, limit=SHOWN_DATASETS)
    is_new = not (active.shown or newest or sets)
    return templates.render(
        request,
        "home/home.html",
        is_new=is_new,
        examples=example_offers(),
        active=active,
        epochs=epochs,
        samples=samples,
        adapters=newest,
        datasets=sets,
    )


@router.get("/home/runs", Action.LOOK)
def home_runs(session: Reading) -> HTMLResponse:
    """The runs on the home page, polled while one is active."""
    active = active_runs(session)
    epochs = epochs_of_runs(session, active.shown)
    samples = newest_samples(session, [run.key for run in active.shown])
    return templates.render_fragment(
        "home/_runs.html", active=active, epochs=epochs, samples=samples
    )


@router.get("/running", Action.LOOK)
def running(request: Request, session: Reading, ended: bool = False) -> HTMLResponse:
    """The status strip in the top bar, polled; browsers with notifications ask for `ended`."""
    notices = [_end_notice(run) for run in ended_runs(session)] if ended else []
    running = templates.running_strip(request)
    return templates.render_fragment("_running.html", running=running, ended=notices)


def _end_notice(run: Run) -> dict[str, str]:
    """The notice of a run that has ended, as the script of the pages reads it.

    Browsers remember by `key` which ones they have shown.
    """
    steps, status = plural(run.step, "step"), JobStatus(run.status)
    text = {
        JobStatus.SUCCEEDED: f"Trained {steps}.",
        JobStatus.FAILED: (run.error or "")[:SHOWN_REASON],
        JobStatus.CANCELED: f"It had trained {steps}.",
    }[status]
    title = f"“{run.name}” {STATUS_PHRASES[status]}"
    if run.outcome == RUINED:
        title, text = f"{title}, ruined", (run.outcome_reason or "")[:SHOWN_REASON]
    key = f"{run.key} {run.finished_at}"
    return {"key": key, "title": title, "text": text, "href": f"/runs/{run.key}"}
