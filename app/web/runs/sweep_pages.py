"""Pages of sweeps: the form of one, and what it found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fastapi import Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from app.registry.base_models import service as base_models
from app.registry.errors import InvalidInput
from app.registry.runs import service as runs
from app.registry.runs.requests import RunRequest
from app.registry.runs.settings import setting_label
from app.registry.runs.several_datasets import whole_number
from app.registry.sweeps import service
from app.registry.sweeps.plan import (
    INCOMPARABLE,
    MOST_SEEDS,
    PlannedSweep,
    SweepRequest,
    plan_sweep,
)
from app.registry.sweeps.records import SweepPlan, read_plan, read_result
from app.registry.sweeps.service import runs_of
from app.registry.sweeps.views import SweepView, images_of, view_sweep
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run, Sweep
from app.registry.wording import plural
from app.web.access.needs import Action, Router
from app.web.form_reader import FormReader, as_id
from app.web.forms import SentForm
from app.web.runs.forms import read_form
from app.web.state import Id, OptionalId, Reading, State, Writing
from app.web.templates import redirect_with_notice, render
from app.web.used_version import redirect_to_used
from worker.core.training.config import MAX_SEED, TrainConfig

router = Router(include_in_schema=False)

AXES = 3
SHOWN = 6  # subjects
LEAD = 3
SETTINGS = [
    ("", "Nothing"),
    *((name, setting_label(name)) for name in TrainConfig.model_fields if name not in INCOMPARABLE),
]
OWN_FIELD = re.compile(r"(setting|values)_\d+|seeds|title|act|sweep")  # those of the form here
WORDS: dict[str, Any] = {"on": True, "off": False, "none": None}


@dataclass(frozen=True)
class SweepFormPage:
    """The form of a sweep; `planned`: what it would do and cost.

    `kept`: the fields that say what all share: the runs `a` and `b`, or those of the form of a new
    run. `run`: the one of `a`. `axes`: setting and values of each row, as they were typed.
    """

    kept: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    run: Run | None = None
    axes: Sequence[tuple[str, str]] = (("", ""),) * AXES
    seeds: int = 3
    title: str = ""
    planned: PlannedSweep | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepPage:
    """A sweep; `images`: of each configuration with the chosen training `seed`, by its place.

    `lead`: subject and hash of the images beside the result. `judged`: the first two, as a blind
    test takes them.
    """

    row: Sweep
    view: SweepView
    plan: SweepPlan
    runs: Sequence[Run]
    seed: int
    images: Mapping[int, Sequence[str]]
    lead: Sequence[tuple[str, str]]
    judged: Sequence[str]
    eyes: str


@router.get("/sweeps", Action.LOOK)
def index() -> Response:
    """Sweeps are listed with the runs."""
    return RedirectResponse("/runs")


@router.get("/sweeps/new", Action.LOOK)
def new(request: Request, session: Reading, a: OptionalId = None, b: OptionalId = None) -> Response:
    """Show the form of a sweep around the run `a`, or between `a` and `b`."""
    if a is None:
        return RedirectResponse("/train/new")
    run = runs.get_run(session, a)
    axes, errors = list[tuple[str, str]](), dict[str, str]()
    try:
        if b is not None:
            between = service.sweep_between(session, a, b)
            axes = [(name, _text(values)) for name, values in between.axes.items()]
    except InvalidInput as error:
        errors = error.fields
    settings = _settings(base_models.base_of(session, run.base_model_id))
    kept = [(name, str(key)) for name, key in (("a", a), ("b", b)) if key is not None]
    page = SweepFormPage(kept, settings, run, _rows(axes), errors=errors)
    return render(request, "runs/sweep_new.html", page=page)


def ask(request: Request, sent: FormData, base: BaseModel) -> Response:
    """Show the form of a sweep of the training in the form of a new run, which was checked."""
    page = SweepFormPage(_kept(sent), _settings(base))
    return render(request, "runs/sweep_new.html", page=page)


def _settings(base: BaseModel) -> list[tuple[str, str]]:
    """What can differ with a base model, with names."""
    return [one for one in SETTINGS if one[0] not in base.options.hidden]


@router.post("/sweeps/new", Action.TRAIN)
def start(request: Request, state: State, sent: SentForm) -> Response:
    """Say what a sweep would cost, or start it."""
    form = FormReader(sent)
    title, seeds = form.text("title"), form.whole("seeds", 3)
    rows = [n for n in range(len(SETTINGS)) if f"setting_{n}" in form]
    typed = [(form.text(f"setting_{n}"), form.text(f"values_{n}")) for n in rows]
    run_id = as_id(form.text("a"))
    with state.database.read() as session:
        run = runs.get_run(session, run_id) if run_id else None
        page = SweepFormPage(_kept(sent), SETTINGS, run, _rows(typed), seeds, title)
        try:
            form.check()
            axes = {name: _values(text) for name, text in typed if name}
            wanted = (
                service.sweep_around(session, run_id)
                if run_id
                else SweepRequest(read_form(sent).request())
            )
            base = base_models.find_base_model(session, wanted.run.base_model)
            page = replace(page, settings=_settings(base))
            wanted = replace(wanted, axes=axes, seeds=_seeds(wanted.run, seeds), title=title)
            page = replace(page, planned=plan_sweep(session, wanted))
        except InvalidInput as error:
            page = replace(page, errors=error.fields)
    if page.planned is None or form.text("act") != "start":
        status = 422 if page.errors else 200
        return render(request, "runs/sweep_new.html", status=status, page=page)
    with state.database.write() as session:
        sweep = service.create_sweep(session, page.planned)
        return RedirectResponse(f"/sweeps/{sweep.key}", status_code=303)


def _kept(sent: FormData) -> list[tuple[str, str]]:
    """The fields that are not of the form of a sweep."""
    fields = ((name, value) for name, value in sent.multi_items() if isinstance(value, str))
    return [(name, value) for name, value in fields if not OWN_FIELD.fullmatch(name)]


def _rows(axes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The axes, with empty rows for more."""
    used = [one for one in axes if any(one)]
    return [*used, *[("", "")] * max(1, AXES - len(used))][: len(SETTINGS)]


def _seeds(run: RunRequest, count: int) -> tuple[int, ...]:
    """So many seeds from that of the training on, at most one too many."""
    first = whole_number((run.config or {}).get("seed", 0)) or 0  # a wrong one is refused
    return tuple((first + n) % (MAX_SEED + 1) for n in range(min(count, MOST_SEEDS + 1)))


def _values(text: str) -> list[Any]:
    parts = [part.strip() for part in text[:2_000].split(",") if part.strip()]
    return [WORDS.get(part.lower(), part) for part in parts]


def _text(values: Sequence[Any]) -> str:
    words = {value: word for word, value in WORDS.items()}
    return ", ".join(
        words[value] if value is None or isinstance(value, bool) else str(value) for value in values
    )


@router.get("/sweeps/{sweep_id}", Action.LOOK)
def show(request: Request, sweep_id: Id, session: Reading, seed: int | None = None) -> Response:
    """Show a sweep; `seed`: of the training whose images are shown."""
    sweep = service.get_sweep(session, sweep_id)
    plan, result, runs = read_plan(sweep), read_result(sweep), runs_of(session, sweep)
    view = view_sweep(session, sweep)
    chosen = seed if seed in plan.seeds else plan.seeds[0]
    images = images_of(session, view, chosen, SHOWN)
    found = view.found
    best = found.equal[:LEAD] if found and view.winner is None else ()
    shown = [images[place][:1] for place in best if images.get(place)]
    shown = shown or [images.get(view.configurations[0].configuration, [])[:LEAD]]
    first = found.order[:2] if found else ()
    judged = service.best_references(session, result, first, {run.key for run in runs})
    lead = [pair for each in shown for pair in zip(plan.subjects, each, strict=False) if pair[1]]
    page = SweepPage(sweep, view, plan, runs, chosen, images, lead, judged, result.eyes)
    return render(request, "runs/sweep.html", page=page)


@router.post("/sweeps/{sweep_id}/seeds", Action.TRAIN)
def add_seeds(sweep_id: Id, session: Writing, sent: SentForm) -> Response:
    """Add training seeds."""
    count = FormReader(sent).whole("count", 0)
    service.add_seeds(session, sweep_id, min(count, service.MOST_SEEDS_ADDED))
    return redirect_with_notice(f"/sweeps/{sweep_id}", f"{plural(count, 'seed')} more are trained.")


@router.post("/sweeps/{sweep_id}/use", Action.EDIT)
def use(sweep_id: Id, session: Writing, sent: SentForm) -> Response:
    """Put a configuration into use."""
    place = FormReader(sent).whole("configuration", None)
    used = service.use_configuration(session, sweep_id, place)
    return redirect_to_used(used, f"/sweeps/{sweep_id}")


ACTS = {
    "pause": (service.pause_sweep, "Paused. What trains goes on to its pause."),
    "resume": (service.resume_sweep, "The sweep goes on."),
    "cancel": (service.cancel_sweep, "Canceled. What was saved stays."),
}


@router.post("/sweeps/{sweep_id}/{act}", Action.CONTROL)
def press(sweep_id: Id, act: Literal["pause", "resume", "cancel"], session: Writing) -> Response:
    """Hold the waiting runs back, go on, or cancel the sweep."""
    change, text = ACTS[act]
    change(session, sweep_id)
    return redirect_with_notice(f"/sweeps/{sweep_id}", text)
