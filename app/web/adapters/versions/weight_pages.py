"""The page that says where the style of a version starts to show, is best, and breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry import evaluations, prompt_sets, weight_evaluations
from app.registry.adapters import fitting, service
from app.registry.base_models import service as base_models
from app.registry.datasets.choices import dataset_choices
from app.registry.datasets.trained_on import pinned_keys
from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.evaluations import EvaluationDraft, EvaluationView
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.weight_evaluations import WeightRequest
from app.registry.wording import plural
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Slug, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

Number = Annotated[str | None, Query(max_length=60)]


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


@router.get("/adapters/{slug}/weights")
def show(
    request: Request, slug: Slug, state: State, v: Number = None, new: bool = False
) -> Response:
    """Show the newest evaluation of the weights of a version, or the form of a new one."""
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter, v or None)
        found = evaluations.list_evaluations(session, version_id=version.key, limit=1)
        if found and not new:
            view = evaluations.view_evaluation(session, found[0])
            page = WeightsPage(adapter, version, view)
        else:
            page = _form(session, adapter, version, WeightRequest())
    return render(request, "adapters/weights.html", page)


@router.post("/adapters/{slug}/weights")
def start(request: Request, slug: Slug, state: State, sent: SentForm, v: Number = None) -> Response:
    """Start an evaluation of the weights of a version."""
    form = FormReader(sent)
    weights: tuple[float, ...] = weight_evaluations.WEIGHTS
    with form.collect("weights"):
        weights = weight_evaluations.read_weights(form.text("weights", most=1_000)) or weights
    wanted = WeightRequest(
        form.whole("subjects", weight_evaluations.SUBJECTS),
        weights,
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
            page = _form(session, adapter, version, wanted, error.fields, form.text("weights"))
            return render(request, "adapters/weights.html", page, status=422)
    with state.database.write() as session:
        evaluations.start_evaluation(session, plan, state.store)
    return RedirectResponse(f"/adapters/{slug}/weights?v={version.version}", status_code=303)


def _form(
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
        weights=typed or ", ".join(f"{one:g}" for one in wanted.weights),
        errors=errors or {},
        datasets=[("", own), *datasets],
        bases=[(base.slug, base.name) for base in bases],
        prompt_sets=prompt_sets.set_choices(session),
    )
