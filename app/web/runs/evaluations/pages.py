"""The page that says which checkpoint of a run to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry import evaluations, prompt_sets, weight_evaluations
from app.registry.blind_tests.results import OwnEyes, own_eyes
from app.registry.db import Session
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.evaluations import EvaluationDraft, EvaluationRequest, EvaluationView
from app.registry.job_kinds.kinds import EvaluateRunArgs, JobKind
from app.registry.runs import checkpoints, service
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from app.web.access.needs import Action, Router
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Id, Reading, State, Writing
from app.web.templates import render

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class EvaluationPage:
    """A run with its newest evaluation, or what one would cost; `problem`: why there can be none.

    `note`: why the run was not evaluated by itself. `saved`: its checkpoints by step. `copies`:
    the images that the recommended one remembers best, each with what it draws for the caption, and
    that. `gaps`: see `loss_gaps`.
    """

    run: Run
    wanted: EvaluationRequest
    view: EvaluationView | None = None
    draft: EvaluationDraft | None = None
    problem: str = ""
    note: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    saved: Mapping[int, RunCheckpoint] = field(default_factory=dict)
    copies: Sequence[tuple[str, str, str]] = ()
    gaps: Mapping[int, float] = field(default_factory=dict)
    prompt_sets: Sequence[tuple[object, str]] = ()
    eyes: OwnEyes = field(default_factory=OwnEyes)


@router.get("/runs/{run_id}/evaluation", Action.LOOK)
def show(request: Request, run_id: Id, session: Reading, new: bool = False) -> Response:
    """Show the newest evaluation of a run, or the form of a new one."""
    page = _page(session, run_id, EvaluationRequest(), new=new)
    return render(request, "runs/evaluation.html", page)


@router.post("/runs/{run_id}/evaluation", Action.DRAW)
def start(request: Request, run_id: Id, state: State, sent: SentForm) -> Response:
    """Start an evaluation."""
    form = FormReader(sent)
    wanted = EvaluationRequest(
        form.whole("subjects", evaluations.SUBJECTS),
        form.whole("checkpoints", evaluations.CHECKPOINTS),
        form.text("prompt_set") or None,
    )
    try:
        form.check()
        with state.database.read() as session:
            plan = evaluations.plan_evaluation(session, run_id, wanted)
    except InvalidInput as error:
        with state.database.read() as session:
            page = _page(session, run_id, wanted, new=True, errors=error.fields)
        return render(request, "runs/evaluation.html", page, status=422)
    with state.database.write() as session:
        evaluations.start_evaluation(session, plan, state.store)
    return RedirectResponse(f"/runs/{run_id}/evaluation", status_code=303)


@router.post("/evaluations/{evaluation_id}/cancel", Action.CONTROL)
def cancel(evaluation_id: Id, session: Writing) -> Response:
    """Cancel an evaluation."""
    job = evaluations.cancel_evaluation(session, evaluation_id)
    return RedirectResponse(_address_of(session, job), status_code=303)


@router.post("/evaluations/{evaluation_id}/repeat", Action.CONTROL)
def repeat(evaluation_id: Id, state: State, session: Writing) -> Response:
    """Measure again; only images that are missing are drawn again."""
    job = evaluations.repeat_evaluation(session, evaluation_id, state.store)
    return RedirectResponse(_address_of(session, job), status_code=303)


def _address_of(session: Session, job: IoJob) -> str:
    """The page of an evaluation; the list of adapters if it is of a version that was deleted."""
    if job.kind == JobKind.EVALUATE_RUN:
        return f"/runs/{job.subject_id}/evaluation"
    made = weight_evaluations.subject_of(session, job.subject_id)
    return f"/adapters/{made[0].slug}/weights?v={made[1].version}" if made else "/adapters"


def _page(
    session: Session,
    run_id: int,
    wanted: EvaluationRequest,
    *,
    new: bool,
    errors: Mapping[str, str] | None = None,
) -> EvaluationPage:
    page = EvaluationPage(service.get_run(session, run_id), wanted)
    newest = [] if new else evaluations.list_evaluations(session, run_id=run_id, limit=1)
    view = evaluations.view_evaluation(session, newest[0]) if newest else None
    if view and (view.is_planned or view.job.state.is_active):
        return _with_result(session, page, view)
    try:
        draft = evaluations.draft_evaluation(session, run_id, EvaluationRequest())
    except AppError as error:
        return replace(page, problem=error.detail)
    return replace(
        page,
        draft=draft,
        note=view.not_ordered if view else "",
        errors=errors or {},
        prompt_sets=prompt_sets.set_choices(session),
    )


def _with_result(session: Session, page: EvaluationPage, view: EvaluationView) -> EvaluationPage:
    args, run, result = view.args, page.run, view.result
    assert isinstance(args, EvaluateRunArgs)
    rows = checkpoints.list_checkpoints(session, run.key, steps=args.steps)
    page = replace(page, view=view, saved={row.step: row for row in rows})
    if not result.steps:
        return page
    copies = list[tuple[str, str, str]]()
    with suppress(Conflict):  # the images were deleted for good
        images = evaluations.run_images(session, run)
        one = result.kept or result.steps[-1]
        column = 1 + args.steps.index(one.step)
        for at, _ in one.closest:
            row = len(args.prompts) + sum(map(bool, args.captions[:at]))
            if drawn := view.image_at(column, row):
                copies.append((images[args.trained[at]].sha256, drawn, args.captions[at]))
    gaps, eyes = evaluations.loss_gaps(session, run.key), own_eyes(session, run_id=run.key)
    return replace(page, copies=copies, gaps=gaps, eyes=eyes)
