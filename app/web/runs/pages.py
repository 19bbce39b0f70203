"""Pages of runs: the form of a new run, one run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry import prompt_sets
from app.registry.datasets import service as datasets
from app.registry.db import MAX_ID, Session
from app.registry.errors import AppError, Conflict, InvalidInput, QuotaUsedUp
from app.registry.job_kinds.kinds import DryRunResult
from app.registry.runs import dry_runs, requests, service
from app.registry.runs.crops import crops_of
from app.registry.runs.pinned_images import pinned_images
from app.registry.runs.presets import shipped_preset
from app.registry.runs.progress import run_metrics
from app.registry.runs.several_datasets import place_of_field
from app.web.access.needs import Action, Router
from app.web.form_reader import as_id
from app.web.forms import MAX_TEXT, TypedForm
from app.web.runs import (
    form_datasets,
    list_pages,
    one_run_pages,
    pasted,
    preset_pages,
    prompt_set_pages,
    sweep_pages,
)
from app.web.runs import plan as plans
from app.web.runs.chart_view import CHART_METRICS
from app.web.runs.evaluations import pages as evaluation_pages
from app.web.runs.forms import (
    APART,
    EVALUATE,
    PROMPTS,
    ConfigField,
    ConfigGroup,
    TrainForm,
    as_own_preset,
    config_field,
    config_groups,
    read_form,
)
from app.web.runs.pasted import PastedSettings
from app.web.runs.plan import PresetCard, RunChoices, RunPlan
from app.web.runs.preset_pages import FormPreset
from app.web.runs.run_view import run_view, settings_panel
from app.web.runs.version_offer import VersionOffer, check_offer, version_offer
from app.web.state import Id, OptionalId, Reading, State, Writing, session_of
from app.web.templates import render, render_fragment, running_strip, wants_fragment
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.training.config import MAX_SAMPLE_PROMPTS, TrainConfig
from worker.core.training.presets import prompts_of

router = Router(include_in_schema=False)
router.include_router(list_pages.router)  # before the others: `compare` is not an id
router.include_router(one_run_pages.router)
router.include_router(preset_pages.router)
router.include_router(prompt_set_pages.router)
router.include_router(evaluation_pages.router)
router.include_router(sweep_pages.router)

REGULARIZATION = "regularization_dataset_id"  # a field among the advanced settings
IMAGES_SHOWN = 8  # of the dataset, on the page of a run
Text = Annotated[str, Query(max_length=300)]


@dataclass(frozen=True)
class NewRunPage:
    """The form of a new run."""

    form: TrainForm
    choices: RunChoices
    cards: list[PresetCard]
    base_seconds: dict[int, float | None]
    plan: RunPlan
    groups: list[ConfigGroup]
    prompts: ConfigField
    prompt_sets: list[tuple[object, str]]
    evaluate: ConfigField
    changed: list[str]
    changed_count: int
    shown: str
    kept: str
    errors: dict[str, str]
    checked_errors: dict[str, str]
    problems: list[dict[str, str]]
    summary: str
    with_fields: bool
    advanced_open: bool
    offer: VersionOffer | None
    pasted: PastedSettings
    own: FormPreset


@router.get("/train/new", Action.LOOK)
def new_run(
    request: Request,
    session: Reading,
    dataset: Text = "",
    preset: Text = "",
    base: Text = "",
    from_run: Annotated[str, Query(alias="from", max_length=20)] = "",
    checkpoint: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    adapter: OptionalId = None,
) -> Response:
    """Show the form of a new run, filled from the URL or from an earlier run."""
    form = plans.first_form(
        session,
        dataset=dataset,
        base=base,
        preset=shipped_preset(preset) if preset else None,
        own_preset=as_own_preset(preset),
        from_run=as_id(from_run),
        checkpoint=checkpoint,
        adapter=adapter,
    )
    return _show_form(request, form)


@router.post("/train/new", Action.TRAIN)
def start_run(request: Request, state: State, sent: TypedForm) -> Response:
    """Queue the run, or ask for a sweep of it; errors are shown again next to their fields."""
    form, paste, own = _read_typed(sent)
    try:
        if paste.text.strip():
            raise InvalidInput(pasted.NOT_TAKEN, fields={pasted.FIELD: pasted.NOT_TAKEN})
        if own.name.strip():
            raise InvalidInput(
                preset_pages.NOT_TAKEN, fields={preset_pages.FIELD: preset_pages.NOT_TAKEN}
            )
        if "sweep" in sent:
            with state.database.read() as session:
                check_offer(session, form)
                base = requests.check_request(session, form.request()).base
            return sweep_pages.ask(request, sent, base)
        with state.database.write() as session:
            check_offer(session, form)
            run = requests.create_run(session, form.request())
    except AppError as error:
        is_full = isinstance(error, QuotaUsedUp)
        if not error.fields and error.status not in (422, 503) and not is_full:
            raise
        status = error.status if is_full else None
        return _show_form(request, form, error, paste=paste, own=own, status=status)
    return RedirectResponse(f"/runs/{run.key}", status_code=303)


@router.post("/train/new/preset", Action.CREATE)
def save_preset(request: Request, state: State, sent: TypedForm) -> Response:
    """Save the settings of the form as a preset and choose it; nothing typed is lost."""
    form, paste, own = _read_typed(sent)
    try:
        with state.database.write() as session:
            form, saved = preset_pages.save_typed(session, form, own.name)
    except InvalidInput as error:
        own = replace(own, is_refused=True)
        return _show_form(request, form, error, paste=paste, own=own)
    return _show_form(request, form, paste=paste, own=saved)


@router.post("/train/new/datasets", Action.LOOK)
def change_datasets(request: Request, sent: TypedForm) -> Response:
    """Add a dataset to the form or take one away, without starting anything."""
    form, paste, own = _read_typed(sent)
    rows = form_datasets.change_rows(form.further, str(sent.get(form_datasets.FIELD, "")))
    return _show_form(request, replace(form, further=rows), paste=paste, own=own)


@router.post("/train/new/prompts", Action.LOOK)
def fill_prompts(request: Request, session: Reading, sent: TypedForm) -> Response:
    """Fill the first subjects of a prompt set into the form, without starting anything."""
    form, paste, own = _read_typed(sent)
    _, subjects = prompt_sets.find_version(session, str(sent.get("prompt_set", "")))
    prompt_form = plans.find_choices(session, form).prompt_form
    prompts = prompts_of(subjects[:MAX_SAMPLE_PROMPTS], prompt_form)
    form = replace(form, values={**form.values, PROMPTS: "\n".join(prompts)})
    return _show_form(request, form, paste=paste, own=own)


@router.post("/train/new/measure", Action.TRAIN)
def measure(request: Request, state: State, sent: TypedForm) -> Response:
    """Measure what the run of the form takes, or stop that; nothing typed is lost."""
    form, paste, own = _read_typed(sent)
    refused = None
    try:
        with state.database.write() as session:
            if job_id := as_id(str(sent.get("stop_measuring", ""))):
                dry_runs.cancel_dry_run(session, job_id)
            else:
                dry_runs.order_dry_run(session, form.request())
    except AppError as error:
        if not error.fields and not isinstance(error, Conflict):
            raise
        refused = error
    if wants_fragment(request):
        with state.database.read() as session:
            page = _new_run_page(session, form, refused, paste=paste, own=own)
        return render_fragment("runs/_plan.html", page)
    return _show_form(request, form, refused, paste=paste, own=own)


@router.get("/train/dry-runs/{job_id}", Action.LOOK)
def round_trips(request: Request, job_id: Id, session: Reading) -> Response:
    """Show the images that lose most in the autoencoder, before and after."""
    job = dry_runs.get_dry_run(session, job_id)
    found = () if dry_runs.is_old(job) else job.outcome(DryRunResult).round_trips
    return render(request, "runs/round_trips.html", job=job, found=found)


@router.get("/train/new/datasets", Action.LOOK)
@router.get("/train/new/measure", Action.LOOK)
@router.get("/train/new/preset", Action.LOOK)
@router.get("/train/new/prompts", Action.LOOK)
@router.get("/train/new/paste", Action.LOOK)
def reload_form() -> Response:
    """Show the form again where an address is opened that a form was sent to."""
    return RedirectResponse("/train/new", status_code=303)


@router.post("/train/new/paste", Action.LOOK)
def paste_settings(request: Request, sent: TypedForm) -> Response:
    """Fill pasted settings into the form; say which of them cannot be used."""
    form, paste = pasted.fill_in(read_form(sent), str(sent.get(pasted.FIELD, "")))
    return _show_form(request, form, paste=paste, status=200 if paste.used else 422)


@router.post("/train/new/crops", Action.LOOK)
def show_crops(session: Reading, sent: TypedForm) -> Response:
    """Show how the images of the chosen dataset are cropped at the chosen resolution."""
    form = read_form(sent)
    choices = plans.find_choices(session, form)
    config = plans.make_plan(session, form, choices).config
    resolution = config.resolution or (choices.base.resolution if choices.base else None)
    images = [
        image
        for row in choices.rows
        if row.summary is not None
        for image in datasets.trained_images(session, row.summary.dataset.key)
    ]
    family = find_family(choices.base.family if choices.base else None) or FALLBACK_FAMILY
    found = crops_of(
        images,
        resolution or family.facts.native_side,
        squares=not config.aspect_buckets,
        side_step=family.facts.options.side_step,
    )
    return render_fragment("runs/_crops.html", crops=found)


@router.post("/train/new/plan", Action.LOOK)
def plan_run(
    request: Request,
    session: Reading,
    sent: TypedForm,
    part: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """Update the preview of the run; with `part=fields` also the settings of another preset."""
    page = _new_run_page(session, read_form(sent), with_fields=part == "fields")
    return render_fragment("runs/_plan.html", page)


def _read_typed(sent: TypedForm) -> tuple[TrainForm, PastedSettings, FormPreset]:
    """A submitted form, with the text and the name in it that are not used yet."""
    text, name = (str(sent.get(field, "")) for field in (pasted.FIELD, preset_pages.FIELD))
    return read_form(sent), PastedSettings(text[:MAX_TEXT]), FormPreset(name)


def _show_form(
    request: Request,
    form: TrainForm,
    error: AppError | None = None,
    *,
    paste: PastedSettings | None = None,
    own: FormPreset | None = None,
    status: int | None = None,
) -> Response:
    """The page of the form, with what is wrong with it."""
    with session_of(request) as session:
        page = _new_run_page(session, form, error, paste=paste, own=own)
    status = status or (422 if error else 200)
    return render(request, "runs/new.html", page, status=status)


def _new_run_page(
    session: Session,
    form: TrainForm,
    error: AppError | None = None,
    *,
    with_fields: bool = False,
    paste: PastedSettings | None = None,
    own: FormPreset | None = None,
) -> NewRunPage:
    choices = plans.find_choices(session, form)
    default = choices.default_texts
    kept = form.hidden_kept | form.changed
    values = {**form.hidden_kept, **form.values}
    visible = {name: text for name, text in values.items() if name in default}
    form = replace(form, values=visible)
    if form.shown is None:
        form = replace(form, values={**default, **visible}, shown=default)
    values = default | form.changed
    plan = plans.make_plan(session, form, choices)
    errors = dict(plan.errors) | (error.fields if error else {})
    changed = [name for name, text in values.items() if text != default[name]]
    return NewRunPage(
        form=form,
        choices=choices,
        cards=plans.preset_cards(session, form, choices),
        base_seconds=plans.base_seconds(session, choices),
        plan=plan,
        groups=config_groups(default, values, errors, choices.options.training),
        prompts=config_field(PROMPTS, default=default, values=values, errors=errors),
        prompt_sets=prompt_sets.set_choices(session),
        evaluate=config_field(EVALUATE, default=default, values=values, errors=errors),
        changed=[_field_label(name) for name in changed],
        changed_count=len([name for name in changed if name not in APART])
        + bool(form.regularization),
        shown=json.dumps(default),
        kept=json.dumps(kept),
        errors=errors if error else {},
        checked_errors=errors if error else errors | plans.form_errors(session, form),
        problems=[
            {"anchor": name, "label": _field_label(name), "reason": reason}
            for name, reason in errors.items()
        ],
        summary=error.detail if error else "",
        with_fields=with_fields,
        advanced_open=bool(error and set(errors) & {*default, REGULARIZATION} - {*APART}),
        offer=version_offer(session, form, choices),
        pasted=paste or PastedSettings(),
        own=own or FormPreset(),
    )


def _field_label(name: str) -> str:
    info = TrainConfig.model_fields.get(name)
    if info is not None and info.title:
        return info.title
    labels = {
        "dataset_id": "Dataset",
        "base_model": "Base model",
        "adapter_id": "Next version",
        pasted.FIELD: "Settings as JSON",
        preset_pages.FIELD: "Name of the preset",
    }
    placed = place_of_field(name)
    if name not in labels and placed is not None:
        place, is_repeats = placed
        return f"{'Repeats of dataset' if is_repeats else 'Dataset'} {place}"
    return labels.get(name, name.replace("_", " ").capitalize())


@router.get("/runs/{run_id}", Action.LOOK)
def run(request: Request, run_id: Id, session: Reading, before: OptionalId = None) -> Response:
    """Show one run: progress, samples (those before a step), loss and result."""
    view = run_view(session, run_id, samples_before=before)
    settings = settings_panel(session, view.run)
    pinned = pinned_images(session, view.run, most=IMAGES_SHOWN)
    return render(
        request,
        "runs/show.html",
        view=view,
        tokens=view.parts(),
        points=None,  # the chart of a whole page loads its own
        settings=settings,
        pinned=pinned,
    )


@router.get("/runs/{run_id}/live", Action.LOOK)
def live_run(
    request: Request,
    run_id: Id,
    session: Reading,
    after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    before: OptionalId = None,
) -> Response:
    """Progress of a run, with the parts of its page that changed since the last request.

    The points of the chart are those after the step `after`.
    """
    view = run_view(session, run_id, samples_before=before)
    points = run_metrics(session, run_id, after=after, keys=CHART_METRICS)["series"]
    tokens = view.parts()
    seen = request.query_params
    changed = {part for part, token in tokens.items() if seen.get(part) != token}
    settings = settings_panel(session, view.run) if "settings" in changed else None
    return render_fragment(
        "runs/_live.html",
        view=view,
        tokens=tokens,
        points=points,
        changed=changed,
        running=running_strip(request),
        settings=settings,
    )


@router.post("/runs/{run_id}/cancel", Action.CONTROL)
def cancel_run(run_id: Id, session: Writing) -> Response:
    """Cancel a run and return to its page."""
    service.cancel_run(session, run_id)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


@router.post("/runs/{run_id}/{action}", Action.CONTROL)
def ask_run(run_id: Id, action: Literal["sample", "save"], session: Writing) -> Response:
    """Send a command to a training run; it takes effect at the next step."""
    service.request_run_action(session, run_id, action)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)
