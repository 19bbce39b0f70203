"""Pages beside that of a run: stop it, its images, its name and notes, its checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Path, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.comparison.runs import compare_steps
from app.registry.datasets.used_datasets import used_datasets
from app.registry.db import MAX_ID
from app.registry.errors import InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.runs import checkpoints, requests, service, stopping
from app.registry.runs.changing import (
    MAX_NOTES,
    change_description,
    change_settings,
    require_changeable,
    wanted_values,
)
from app.registry.runs.pinned_images import PinnedSet, pinned_images
from app.registry.tables.runs import Run
from app.web.access.needs import Action, Router
from app.web.addresses import own_address
from app.web.comparison import compared_prompts
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Back, Id, Reading, State, Writing
from app.web.templates import redirect_with_notice, render
from app.web.used_version import redirect_to_used
from worker.core.training.changes import CHANGEABLE
from worker.core.training.config import TrainConfig

router = Router(include_in_schema=False)
CHOICES = {"yes": True, "no": False}
FIELDS = ("name", "notes")
Step = Annotated[int, Path(ge=1, le=MAX_ID)]
Before = Annotated[
    int | None, Query(ge=1, le=MAX_ID, description="The page of the run: steps before this one.")
]
Compared = Annotated[int | None, Query(ge=0, le=MAX_ID)]


@router.get("/runs/{run_id}/stop", Action.LOOK)
def ask_stop(request: Request, run_id: Id, session: Reading) -> Response:
    """Ask whether the result becomes the version in use; a run that has ended is shown."""
    run = service.get_run(session, run_id)
    proposal = stopping.propose(session, run)
    if run.state is not JobStatus.RUNNING:
        return RedirectResponse(f"/runs/{run_id}", status_code=303)
    return render(request, "runs/stop.html", run=run, proposal=proposal)


@router.post("/runs/{run_id}/stop", Action.CONTROL)
def stop_run(run_id: Id, session: Writing, sent: SentForm) -> Response:
    """Stop a training and keep its result; without a choice it follows the proposal."""
    choice = CHOICES.get(str(sent.get("make_latest", "")))
    stopping.request_stop(session, run_id, make_latest=choice)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


@router.get("/runs/{run_id}/change", Action.LOOK)
def edit_settings(request: Request, run_id: Id, session: Reading) -> Response:
    """Show the form that changes settings of a run until it ends."""
    run = service.get_run(session, run_id)
    require_changeable(run)
    values = wanted_values(run)
    return _change_form(request, run, values, values, {})


@router.post("/runs/{run_id}/change", Action.EDIT)
def save_settings(request: Request, run_id: Id, state: State, sent: SentForm) -> Response:
    """Change the settings that differ from those that the form began with, `seen`."""
    form = FormReader(sent)
    typed = {name: form.text(name) for name in CHANGEABLE}
    seen = {name: form.text(f"seen_{name}") for name in CHANGEABLE}
    try:
        with state.database.write() as session:
            run = service.get_run(session, run_id, lock=True)
            changed = {name: text for name, text in typed.items() if text != seen[name]}
            change_settings(session, run_id, changed)
    except InvalidInput as error:
        return _change_form(request, run, typed, seen, error.fields)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


def _change_form(
    request: Request,
    run: Run,
    values: Mapping[str, object],
    seen: Mapping[str, object],
    errors: Mapping[str, str],
) -> Response:
    return render(
        request,
        "runs/change.html",
        run=run,
        values=values,
        seen=seen,
        errors=errors,
        fields={name: TrainConfig.model_fields[name] for name in CHANGEABLE},
        status=422 if errors else 200,
    )


@router.get("/runs/{run_id}/images", Action.LOOK)
def run_images(
    request: Request,
    run_id: Id,
    session: Reading,
    of: PinnedSet = PinnedSet.TRAINING,
    dataset: Annotated[int, Query(ge=1, le=1_000)] = 1,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """Show the images and captions of a run, also when its dataset changed or was deleted."""
    run = service.get_run(session, run_id)
    found = pinned_images(session, run, of=of, place=dataset, page=page)
    used = used_datasets(session, run)
    return render(request, "runs/images.html", run=run, shown=of, found=found, datasets=used)


@dataclass(frozen=True)
class DescriptionPage:
    """The form: typed values, errors by field, and the stored texts it began with, as tokens.

    `other`: the stored value of a field that was changed elsewhere meanwhile.
    """

    run: Run
    values: dict[str, str]
    tokens: dict[str, str]
    back: str
    errors: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    max_name: int = requests.MAX_NAME
    max_notes: int = MAX_NOTES


@router.get("/runs/{run_id}/edit", Action.LOOK)
def edit_run(request: Request, run_id: Id, session: Reading, back: Back = "") -> Response:
    """Show the form that renames and annotates a run."""
    run = service.get_run(session, run_id)
    values = {name: str(getattr(run, name)) for name in FIELDS}
    page = DescriptionPage(run, values, _tokens(run), _back(run_id, back))
    return render(request, "runs/edit.html", page)


@router.post("/runs/{run_id}/edit", Action.EDIT)
def save_run(request: Request, run_id: Id, state: State, sent: SentForm) -> Response:
    """Save what was changed in the form, then go back; nothing that came from elsewhere is lost.

    A field that was changed here and meanwhile elsewhere is shown again, with both values.
    """
    form = FormReader(sent)
    back = _back(run_id, form.text("back"))
    values = {name: form.text(name) for name in FIELDS}
    other: dict[str, str] = {}
    try:
        with state.database.write() as session:
            run = service.get_run(session, run_id, lock=True)
            tokens = _tokens(run)
            changed = {name for name in FIELDS if _token(values[name]) != form.text(f"seen_{name}")}
            for name in changed:
                if tokens[name] not in (form.text(f"seen_{name}"), _token(values[name])):
                    other[name] = str(getattr(run, name))
            if not other:
                new = {name: values[name] for name in changed}
                run = change_description(session, run_id, **new)
    except InvalidInput as error:
        page = DescriptionPage(run, values, tokens, back, errors=error.fields)
        return render(request, "runs/edit.html", page, status=422)
    if other:
        page = DescriptionPage(run, values, tokens, back, other=other)
        return render(request, "runs/edit.html", page, status=409)
    return redirect_with_notice(back, f"Saved “{run.name}”.")


def _back(run_id: int, address: str) -> str:
    return own_address(address) if address else f"/runs/{run_id}"


def _tokens(run: Run) -> dict[str, str]:
    return {name: _token(str(getattr(run, name))) for name in FIELDS}


def _token(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@router.get("/runs/{run_id}/compare", Action.LOOK)
def compare(
    request: Request, run_id: Id, session: Reading, a: Compared = None, b: Compared = None
) -> Response:
    """Compare the samples of two steps, by default of the newest and the one before it."""
    found = compare_steps(session, run_id, a, b)
    options = [(step.step, step.option) for step in found.steps]
    return render(
        request, "runs/compare.html", found=found, options=options, images=compared_prompts(found)
    )


@router.post("/runs/{run_id}/checkpoints/{step}/keep", Action.EDIT)
def keep(run_id: Id, step: Step, session: Writing, before: Before = None) -> Response:
    """Keep a checkpoint, so that later ones never replace it."""
    checkpoints.keep_checkpoint(session, run_id, step, kept=True)
    return RedirectResponse(_row(run_id, step, before), status_code=303)


@router.post("/runs/{run_id}/checkpoints/{step}/release", Action.EDIT)
def release(run_id: Id, step: Step, session: Writing, before: Before = None) -> Response:
    """Keep a checkpoint no longer."""
    checkpoints.keep_checkpoint(session, run_id, step, kept=False)
    return RedirectResponse(_row(run_id, step, before), status_code=303)


@router.post("/runs/{run_id}/checkpoints/{step}/use", Action.EDIT)
def use(run_id: Id, step: Step, session: Writing, before: Before = None) -> Response:
    """Make a version of a checkpoint, then show the run again, which says so."""
    used = checkpoints.use_checkpoint(session, run_id, step)
    return redirect_to_used(used, _row(run_id, step, before), f": step {step:,}")


def _row(run_id: int, step: int, before: int | None) -> str:
    """The page of the run that was shown, at the row of the checkpoint."""
    page = f"?before={before}" if before else ""
    return f"/runs/{run_id}{page}#step-{step}"
