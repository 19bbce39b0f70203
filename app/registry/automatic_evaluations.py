"""The evaluation that a run asks for: its quick form, ordered once the run has completed.

`progress.order_evaluation` queues its job in the transaction that completes the run. Once no run
trains or waits, an io worker plans it: as many images as fit into a quarter of the run's own time.
"""

from __future__ import annotations

from sqlmodel import Session

from app.registry import evaluations
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.evaluations import EvaluationDraft, EvaluationPlan, EvaluationRequest
from app.registry.job_kinds.kinds import EvaluateRunArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.prompt_sets import FEWEST_SUBJECTS
from app.registry.renders.grids import service as grids
from app.registry.runs import service as runs
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import AFTER_RUNS, IoJob
from app.registry.tables.runs import Run
from app.registry.wording import duration, plural
from worker.core.evaluation.subjects import STEPS
from worker.core.training.config import TrainConfig

SHARE = 0.25  # of the run's own time, at most
EARLIER = 20  # evaluations that are looked at
MEASURING = 0.1  # of the time of the images
QUICK_FORMS = (
    EvaluationRequest(24, 4),
    EvaluationRequest(16, 4, captions=12, plain=0),
    EvaluationRequest(12, 4, captions=8, plain=0),
    EvaluationRequest(12, 3, captions=8, plain=0),
    EvaluationRequest(8, 3, captions=8, plain=0),
    EvaluationRequest(FEWEST_SUBJECTS, 2, captions=8, plain=0),
)
"""From the form that a person gets to the smallest that has intervals and finds copies."""

STEP_PASSES = 3  # a backward pass costs about two forward passes
IMAGE_PASSES = 2 * STEPS  # with guidance; on a busy CPU a trainer gives way, so it errs to fewer
TOO_LONG = (
    "Not compared by itself: even {images} would take {time}, more than a quarter of the training."
)
BY_HAND = "Not compared by itself: somebody has ordered it before."


def plan_at_end(session: Session, run_id: int) -> EvaluationPlan:
    """The largest quick form that fits. Raises AppError with the reason if there is none."""
    run = runs.get_run(session, run_id)
    earlier = evaluations.list_evaluations(session, run_id=run_id, limit=EARLIER)
    if any(job.arguments(EvaluateRunArgs).grid_id for job in earlier):
        raise Conflict(BY_HAND)
    problem: AppError | None = None
    for wanted in QUICK_FORMS:
        try:
            draft = evaluations.draft_evaluation(session, run_id, wanted)
        except InvalidInput as error:  # the captions may leave enough subjects for a smaller one
            problem = error
            continue
        seconds = _seconds(run, draft) * (1 + MEASURING)
        if seconds <= SHARE * run.training_seconds:
            return evaluations.plan_images(session, draft, priority=AFTER_RUNS)
        images, time = plural(draft.images, "image"), duration(seconds)
        problem = Conflict(TOO_LONG.format(images=images, time=time))
    assert problem is not None
    raise problem


def _seconds(run: Run, draft: EvaluationDraft) -> float:
    """Of its images, about: from earlier ones of the base model, else from the run's own steps."""
    if draft.seconds is not None:
        return draft.seconds
    side = draft.base.resolution or USUAL_SIDE
    config = TrainConfig.model_validate(run.config)
    speed = run.steps_per_second or max(1, run.step) / run.training_seconds
    passes = STEP_PASSES * config.batch_size * config.step_cost
    larger = (side / (config.resolution or side)) ** 2
    return draft.images * IMAGE_PASSES * larger / (passes * speed)


def start_planned(session: Session, claim: Claim, plan: EvaluationPlan, store: BlobStore) -> None:
    """Queue the images of an evaluation; its job returns to the queue until they are drawn.

    Raises LostLease.
    """
    jobs.require_owner(session, IoJob, claim)
    job = session.get_one(IoJob, claim.job_id, populate_existing=True)
    if job.cancel_requested:
        jobs.finish(session, IoJob, claim, JobStatus.CANCELED)
        return
    grid = grids.create_grid(session, plan.grid, store)
    args = plan.draft.args.model_copy(update={"grid_id": grid.key})
    jobs.finish(session, IoJob, claim, JobStatus.QUEUED, args=args.stored(), attempt=0)
