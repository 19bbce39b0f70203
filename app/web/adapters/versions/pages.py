"""Pages of the versions of an adapter: aliases, weights, comparison, training again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Path, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry import evaluations, prompt_sets, weight_evaluations
from app.registry.adapters import fitting, service
from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.adapters.versions import aliases
from app.registry.base_models import service as base_models
from app.registry.blind_tests.results import OwnEyes, own_eyes
from app.registry.comparison.versions import compare
from app.registry.datasets.figures import dataset_choices
from app.registry.datasets.used_datasets import pinned_keys
from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.evaluations import EvaluationDraft, EvaluationView
from app.registry.runs.rerun import require_run, train_again
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.weight_evaluations import WeightRequest
from app.registry.wording import plural
from app.web.access.needs import Action, Router
from app.web.adapters.detail import refuse_change
from app.web.addresses import own_address
from app.web.comparison import compared_prompts
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Back, Reading, Slug, State, Writing
from app.web.templates import redirect_with_notice, render
from app.web.used_version import redirect_to_used

router = Router(include_in_schema=False)

Reference = Annotated[str | None, Query(max_length=60)]
Used = Annotated[str, Path(max_length=60)]
CHOICES = 200


@dataclass(frozen=True)
class WeightsPage:
    """A version with its newest evaluation, or the form of one with what was typed.

    `draft`: what it would cost; None if it cannot be started as it is. `problem`: why, before
    somebody has sent the form.
    """

    adapter: Adapter
    version: AdapterVersion
    view: EvaluationView | None = None
    draft: EvaluationDraft | None = None
    problem: str = ""
    wanted: WeightRequest = field(default_factory=WeightRequest)
    weights: str = ""
    errors: Mapping[str, str] | None = None
    datasets: list[tuple[object, str]] | None = None
    bases: list[tuple[object, str]] | None = None
    prompt_sets: list[tuple[object, str]] | None = None
    eyes: OwnEyes = field(default_factory=OwnEyes)


@router.get("/adapters/{slug}/compare", Action.LOOK)
def compare_versions(
    request: Request, slug: Slug, session: Reading, a: Reference = None, b: Reference = None
) -> Response:
    """Compare two versions; by default the current one and the one before it."""
    adapter = service.adapter_by_slug(session, slug)
    found = compare(session, adapter, a or None, b or None)
    versions = service.list_versions(session, adapter.key, limit=CHOICES)
    shown = {row.version for row in versions}
    for row in (found.a, found.b):
        if row.version not in shown:
            versions.append(row)
    options = [(row.version, f"Version {row.version}") for row in versions]
    return render(
        request,
        "adapters/compare.html",
        found=found,
        options=options,
        images=compared_prompts(found),
    )


@router.post("/adapters/{slug}/aliases", Action.EDIT)
def set_alias(request: Request, slug: Slug, state: State, sent: SentForm) -> Response:
    """Set an alias of a version, moving it if needed; errors appear next to the field."""
    shown = str(sent.get("version", ""))
    try:
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            version = service.get_version(session, adapter, shown or None)
            service.require_listed(adapter)
            service.set_alias(session, version, str(sent.get("alias", "")))
    except InvalidInput as error:
        return refuse_change(request, slug, sent, error)
    return RedirectResponse(f"/adapters/{slug}?v={version.version}#versions", status_code=303)


@router.post("/adapters/{slug}/versions/{version}/use", Action.EDIT)
def use_version(slug: Slug, version: Used, session: Writing, back: Back = "") -> Response:
    """Make a version the one in use, then go back to the page it was asked on."""
    adapter = service.adapter_by_slug(session, slug)
    used = service.use_version(session, adapter.key, version)
    page = f"/adapters/{slug}?v={used.version.version}#versions"
    return redirect_to_used(used, own_address(back) if back else page)


@router.post("/adapters/{slug}/usual-weight", Action.EDIT)
def set_weight(request: Request, slug: Slug, state: State, sent: SentForm) -> Response:
    """Set the usual weight of a version; an error appears next to the field.

    The address may have the fields in place of the form, as that which undoes it does.
    """
    form = FormReader({**request.query_params, **sent})
    weight = form.number("usual_weight", 0.0)
    try:
        form.check()
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            version = service.get_version(session, adapter, form.text("version") or None)
            before = version.usual_weight
            set_usual_weight(session, adapter.key, version.version, weight)
            what = adapter.version_label(version.version)
    except InvalidInput as error:
        return refuse_change(request, slug, sent, error)
    text = f"The usual weight of {what} is now {weight:g}."
    values = urlencode({"version": version.version, "usual_weight": before})
    undo = "" if before == weight else f"/adapters/{slug}/usual-weight?{values}"
    page = f"/adapters/{slug}?v={version.version}#usual-weight"
    return redirect_with_notice(page, text, undo=undo)


@router.post("/adapters/{slug}/aliases/remove", Action.EDIT)
def remove_alias(slug: Slug, session: Writing, sent: SentForm) -> Response:
    """Remove an alias; its version stays."""
    adapter = service.adapter_by_slug(session, slug)
    aliases.delete_alias(session, adapter.key, str(sent.get("alias", "")))
    shown = str(sent.get("v", ""))
    query = f"?v={shown}" if shown.isascii() and shown.isdigit() else ""
    return RedirectResponse(f"/adapters/{slug}{query}#versions", status_code=303)


@router.post("/adapters/{slug}/again", Action.TRAIN)
def again(slug: Slug, session: Writing, sent: SentForm) -> Response:
    """Train a version again; the page of the run lists the differences from the first run."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, str(sent.get("version", "")) or None)
    run_id = require_run(adapter, version)
    into = adapter.key if adapter.is_listed else None
    run, _ = train_again(session, run_id, adapter_id=into)
    return RedirectResponse(f"/runs/{run.key}", status_code=303)


@router.get("/adapters/{slug}/weights", Action.LOOK)
def show_weights(
    request: Request, slug: Slug, session: Reading, v: Reference = None, new: bool = False
) -> Response:
    """Show the newest evaluation of the weights of a version, or the form of a new one."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, v or None)
    found = evaluations.list_evaluations(session, version_id=version.key, limit=1)
    if found and not new:
        view = evaluations.view_evaluation(session, found[0])
        eyes = own_eyes(session, adapter_id=adapter.key)
        page = WeightsPage(adapter, version, view, eyes=eyes)
    else:
        page = _weights_form(session, adapter, version, WeightRequest())
    return render(request, "adapters/weights.html", page)


@router.post("/adapters/{slug}/weights", Action.DRAW)
def measure_weights(
    request: Request, slug: Slug, state: State, sent: SentForm, v: Reference = None
) -> Response:
    """Start an evaluation of the weights of a version."""
    form = FormReader(sent)
    weights: tuple[float, ...] = ()
    with form.collect("weights"):
        weights = weight_evaluations.read_weights(form.text("weights", most=1_000))
    wanted = WeightRequest(
        form.whole("subjects", weight_evaluations.SUBJECTS),
        weights or None,
        base_model=form.text("base_model", most=1_000) or None,
        dataset_id=form.whole("dataset_id", None),
        prompt_set=form.text("prompt_set") or None,
    )
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter, v or None)
        try:
            form.check()
            draft = weight_evaluations.draft_weights(session, (adapter, version), wanted)
            plan = evaluations.plan_images(session, draft)
        except InvalidInput as error:
            page = _weights_form(
                session, adapter, version, wanted, error.fields, form.text("weights")
            )
            return render(request, "adapters/weights.html", page, status=422)
    with state.database.write() as session:
        evaluations.start_evaluation(session, plan, state.store)
    return RedirectResponse(f"/adapters/{slug}/weights?v={version.version}", status_code=303)


def _weights_form(
    session: Session,
    adapter: Adapter,
    version: AdapterVersion,
    wanted: WeightRequest,
    errors: Mapping[str, str] | None = None,
    typed: str = "",
) -> WeightsPage:
    made, draft, problem = (adapter, version), None, ""
    if errors is None:
        try:
            draft = weight_evaluations.draft_weights(session, made, wanted)
        except InvalidInput as error:
            problem = error.detail
    (kind,) = fitting.kinds(session, [made])
    bases = fitting.fitting(kind, base_models.list_base_models(session))
    own = "Those it was trained on" if pinned_keys(version) else "Choose a dataset"
    datasets = [
        (one.id, f"{one.name}, {plural(one.image_count, 'image')}")
        for one in dataset_choices(session)
    ]
    return WeightsPage(
        adapter,
        version,
        draft=draft,
        problem=problem,
        wanted=wanted,
        weights=typed,
        errors=errors or {},
        datasets=[("", own), *datasets],
        bases=[(base.slug, base.name) for base in bases],
        prompt_sets=prompt_sets.set_choices(session),
    )
