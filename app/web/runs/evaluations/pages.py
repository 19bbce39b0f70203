"""The page that says which checkpoint of a run to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.registry import evaluations, prompt_sets, weight_evaluations
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.evaluations import EvaluationDraft, EvaluationRequest, RunEvaluation
from app.registry.job_kinds.kinds import EvaluatedStep, JobKind
from app.registry.runs import checkpoints, service
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Id, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Copy:
    """A trained image, what the checkpoint draws for its caption, and how far they are apart."""

    trained: str
    drawn: str
    caption: str
    distance: float


@dataclass(frozen=True)
class EvaluationPage:
    """A run with its newest evaluation, or what one would cost; `problem`: why there can be none.

    `note`: why the run was not evaluated by itself.
    `saved`: its checkpoints by step; `copies`: what the recommended one remembers best.
    """

    run: Run
    view: RunEvaluation | None
    draft: EvaluationDraft | None
    wanted: EvaluationRequest
    problem: str = ""
    note: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    saved: dict[int, RunCheckpoint] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    prompt_sets: list[tuple[object, str]] = field(default_factory=list)

    @property
    def is_active(self) -> bool:
        """True while the page should keep polling."""
        return self.view is not None and self.view.job.state.is_active

    @property
    def kept(self) -> EvaluatedStep | None:
        """The recommended checkpoint."""
        if self.view is None:
            return None
        result = self.view.result
        return next((one for one in result.steps if one.step == result.recommended), None)

    def verdict(self, one: EvaluatedStep) -> str:
        """What is to be said of a checkpoint beside its figures."""
        kept = self.kept
        if one.left_out:
            return one.left_out[:1].upper() + one.left_out[1:]
        if kept is None or one is kept:
            return ""
        return "Looks equally close" if one.is_equal else f"Less close than step {kept.step:,}"


@router.get("/runs/{run_id}/evaluation")
def show(request: Request, run_id: Id, state: State, new: bool = False) -> Response:
    """Show the newest evaluation of a run, or the form of a new one."""
    with state.database.read() as session:
        page = _page(session, run_id, EvaluationRequest(), new=new)
    return render(request, "runs/evaluation.html", page=page)


@router.post("/runs/{run_id}/evaluation")
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
        return render(request, "runs/evaluation.html", status=422, page=page)
    with state.database.write() as session:
        evaluations.start_evaluation(session, plan, state.store)
    return RedirectResponse(f"/runs/{run_id}/evaluation", status_code=303)


@router.post("/evaluations/{evaluation_id}/cancel")
def cancel(evaluation_id: Id, state: State) -> Response:
    """Cancel an evaluation."""
    with state.database.write() as session:
        job = evaluations.cancel_evaluation(session, evaluation_id)
        return RedirectResponse(_address_of(session, job), status_code=303)


@router.post("/evaluations/{evaluation_id}/repeat")
def repeat(evaluation_id: Id, state: State) -> Response:
    """Measure again; only images that are missing are drawn again."""
    with state.database.write() as session:
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
    run = service.get_run(session, run_id)
    newest = [] if new else evaluations.list_evaluations(session, run_id=run_id, limit=1)
    view = evaluations.view_evaluation(session, newest[0].key) if newest else None
    if view is None or not (view.is_planned or view.job.state.is_active):
        try:
            usual = EvaluationRequest() if errors else wanted
            draft = evaluations.draft_evaluation(session, run_id, usual)
        except AppError as error:
            return EvaluationPage(run, None, None, wanted, error.detail)
        note = view.not_ordered if view else ""
        page = EvaluationPage(run, None, draft, wanted, note=note, errors=errors or {})
        return replace(page, prompt_sets=prompt_sets.set_choices(session))
    assert isinstance(view, RunEvaluation)
    rows = checkpoints.list_checkpoints(session, run_id, steps=view.args.steps)
    page = EvaluationPage(run, view, None, wanted, saved={row.step: row for row in rows})
    return replace(page, copies=_copies(session, page))


def _copies(session: Session, page: EvaluationPage) -> list[Copy]:
    """The pairs that are closest, of the recommended checkpoint, or of the last one."""
    view, found = page.view, list[Copy]()
    if view is None or not view.result.steps:
        return found
    one = page.kept or view.result.steps[-1]
    hashes = evaluations.image_hashes(session, page.run)
    for at, distance in one.closest:
        place, drawn = view.args.trained[at], view.image(one.step, view.caption_row(at))
        if place < len(hashes) and drawn:
            found.append(Copy(hashes[place], drawn, view.args.captions[at], distance))
    return found
