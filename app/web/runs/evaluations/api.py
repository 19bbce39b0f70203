"""REST: evaluations of the checkpoints of a run, and of the weights of a version."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import Path, Query
from pydantic import Field

from app.registry import evaluations, weight_evaluations
from app.registry.adapters import service as adapters
from app.registry.base_models.service import BaseReference
from app.registry.db import MAX_ID, Session
from app.registry.evaluations import EvaluationRequest
from app.registry.job_kinds.kinds import JobKind, UsedPromptSet
from app.registry.job_kinds.states import JobStatus
from app.registry.prompt_sets import FEWEST_SUBJECTS
from app.registry.slugs import Reference, RowId
from app.registry.tables.jobs import IoJob
from app.registry.weight_evaluations import WeightRequest
from app.web.access.needs import Action, Router
from app.web.answers import Answer, WorkAnswer
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import AdapterId, Id, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.evaluation.subjects import MOST_SUBJECTS
from worker.core.inference.config import AdapterWeight
from worker.core.lora_files.weights import WeightCard

router = Router(tags=["evaluations"])

Subjects = Annotated[int, Field(ge=FEWEST_SUBJECTS, le=MOST_SUBJECTS)]
BY_SET = "Id or slug of a prompt set to draw instead, whole; `animals@2`: its version 2."
NOT_POSSIBLE = problems({409: "The run has no checkpoint or image left to compare."})


class EvaluationIn(DocumentedModel):
    """What to compare."""

    model_config = example(subjects=24, checkpoints=4)
    subjects: Subjects = evaluations.SUBJECTS
    """Subjects to draw with each checkpoint, which no caption names."""
    checkpoints: int = Field(evaluations.CHECKPOINTS, ge=1, le=evaluations.MOST_CHECKPOINTS)
    """At most so many, spread over the run, the last one among them."""
    prompt_set: Reference | None = Field(None, description=BY_SET)


class WeightEvaluationIn(DocumentedModel):
    """Which weights to compare."""

    model_config = example(subjects=16)
    subjects: Subjects = weight_evaluations.SUBJECTS
    """Subjects to draw at each weight, which no caption names."""
    weights: list[AdapterWeight] | None = Field(
        None,
        min_length=weight_evaluations.FEWEST_WEIGHTS,
        max_length=weight_evaluations.MOST_WEIGHTS,
    )
    """The weights to compare, above 0; absent: eight from 0.2 to 2, times the `weight` in `drawing`
    of the base model."""
    base_model: BaseReference | None = Field(None, description="Absent: that of the version.")
    dataset_id: RowId | None = None
    """The dataset whose images have the style; absent: the images that the version was trained on.
    An imported version needs one."""
    prompt_set: Reference | None = Field(None, description=BY_SET)


class EvaluatedOut(Answer):
    """The measures of a checkpoint or of a weight; null: not measured."""

    style: float | None = Field(description="0: as the base model draws, 1: as the dataset.")
    style_low: float | None = Field(description="Low end of its interval of 95 %.")
    style_high: float | None = Field(description="High end of its interval of 95 %.")
    adherence: float | None
    """How far images show what the prompt says; 1: as the base model's."""


class EvaluatedCheckpointOut(EvaluatedOut):
    """The measures of a checkpoint; null: not measured."""

    step: int = Field(description="Its step.")
    variety: float | None
    """Difference between images of different subjects; 1: as the base model's."""
    copy_ratio: float | None
    """Below 0.5 it draws its training images again when asked with their captions."""
    leak: float | None
    """Style of prompts without the trigger word: 0 if it comes with the word alone."""
    drift: float | None
    """Change of images of such prompts: 0 as the base model's, 1 as another subject."""
    inside: float | None
    """Style of the dataset's own captions. Where it is far above `style`, more varied images help,
    not more steps."""
    loss_gap: float | None
    """Loss on held-out images over that on trained ones, each as a share of the base model's. Far
    above 1 it remembers its images."""
    left_out: str | None = Field(description="Why it is not to be kept; null if nothing is wrong.")
    equal: bool = Field(description="True if it cannot be told from the recommended one.")


class EvaluatedWeightOut(EvaluatedOut):
    """The measures of a weight; null: not measured."""

    weight: float = Field(description="The weight.")
    patches: float
    """Closeness of small patches to the dataset's; 0: as the base model. The best weight has the
    largest."""


class EvaluationOut(WorkAnswer):
    """An evaluation of the checkpoints of a run, or of the weights of a version."""

    address: ClassVar[str] = "/api/v1/evaluations/{id}"
    run_id: int | None = Field(description="The run; null for weights of a version.")
    adapter_id: int | None = Field(description="The adapter; null for a run, or once deleted.")
    version: int | None = Field(description="Number of its version.")
    grid_id: int | None
    """The grid of its images; null while what a run asked for is not planned."""
    prompt_set: UsedPromptSet | None
    """The prompt set that it draws; null: subjects that were proposed."""
    status: JobStatus = Field(description="`queued` until all images are drawn.")
    images: int = Field(description="Number of its images.")
    images_drawn: int = Field(description="Number of those that are there.")
    recommended: int | None = Field(description="Step of the checkpoint to keep; null: none.")
    reason: str | None = Field(description="Why, as a sentence; null before the end.")
    checkpoints: list[EvaluatedCheckpointOut]
    """Their measures by step; empty before the end, or if none was measured."""
    eyes: str | None = Field(description="The model that measured; null before the end.")
    weights: list[EvaluatedWeightOut]
    """Their measures; empty before the end, or if none was measured."""
    weight_card: WeightCard | None
    """Where the style starts to show, is best, and breaks; null: not measured."""
    not_measured: list[str] = Field(description="What was not measured, and why, as sentences.")


def evaluation_out(session: Session, job: IoJob) -> EvaluationOut:
    """An evaluation as the API shows it."""
    view = evaluations.view_evaluation(session, job)
    result, subject_id = view.result, job.subject_id
    run_id = subject_id if job.kind == JobKind.EVALUATE_RUN else None
    made = None if run_id else weight_evaluations.subject_of(session, subject_id)
    gaps = evaluations.loss_gaps(session, run_id) if run_id and result.steps else {}
    return EvaluationOut.of(
        job,
        run_id=run_id,
        adapter_id=made[0].key if made else None,
        version=made[1].version if made else None,
        grid_id=view.args.grid_id or None,
        prompt_set=view.args.prompt_set,
        progress=view.progress,
        images=view.images,
        images_drawn=view.drawn,
        recommended=result.recommended,
        reason=result.reason or None,
        checkpoints=[
            EvaluatedCheckpointOut.of(
                one,
                style_low=one.low,
                style_high=one.high,
                loss_gap=gaps.get(one.step),
                left_out=one.left_out or None,
                equal=one.is_equal,
            )
            for one in result.steps
        ],
        eyes=result.eyes or None,
        weights=[
            EvaluatedWeightOut.of(one, style_low=one.low, style_high=one.high)
            for one in result.weights
        ],
        weight_card=result.card,
        not_measured=list(result.notes),
    )


@router.post("/runs/{run_id}/evaluations", Action.DRAW, status_code=202, responses=NOT_POSSIBLE)
def evaluate_run(run_id: Id, body: EvaluationIn, state: State) -> EvaluationOut:
    """Compare the checkpoints of a run by style, adherence to the prompts, and copying.

    Its images are drawn behind everything a person waits for, then they are measured.
    """
    with state.database.read() as session:
        plan = evaluations.plan_evaluation(session, run_id, EvaluationRequest(**body.model_dump()))
    with state.database.write() as session:
        job = evaluations.start_evaluation(session, plan, state.store)
        return evaluation_out(session, job)


@router.post(
    "/adapters/{adapter_id}/versions/{version}/evaluations",
    Action.DRAW,
    status_code=202,
    responses=problems({422: "No images show the style, or the base model does not fit."}),
)
def evaluate_weights(
    adapter_id: AdapterId,
    version: Annotated[str, Path(max_length=60)],
    body: WeightEvaluationIn,
    state: State,
) -> EvaluationOut:
    """Compare weights of a version: where its style shows, is best, and breaks.

    Its images are drawn behind everything a person waits for, then they are measured. What is
    found is kept with the version; its usual weight stays.
    """
    wanted = WeightRequest(**body.model_dump())
    with state.database.read() as session:
        adapter = adapters.get_adapter(session, adapter_id)
        made = adapter, adapters.get_version(session, adapter, version)
        draft = weight_evaluations.draft_weights(session, made, wanted)
        plan = evaluations.plan_images(session, draft)
    with state.database.write() as session:
        job = evaluations.start_evaluation(session, plan, state.store)
        return evaluation_out(session, job)


@router.get("/evaluations", Action.LOOK)
def list_evaluations(
    session: Reading,
    part: Part,
    run_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Only those of this run.")
    ] = None,
) -> list[EvaluationOut]:
    """List evaluations, newest first."""
    jobs = evaluations.list_evaluations(session, run_id=run_id, limit=part.size, before=part.after)
    return [evaluation_out(session, job) for job in part.cut(jobs, lambda job: job.key)]


@router.get("/evaluations/{evaluation_id}", Action.LOOK)
def get_evaluation(evaluation_id: Id, session: Reading) -> EvaluationOut:
    """Get an evaluation."""
    return evaluation_out(session, evaluations.get_evaluation(session, evaluation_id))


@router.post("/evaluations/{evaluation_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_evaluation(evaluation_id: Id, session: Writing) -> EvaluationOut:
    """Cancel an evaluation and the images that are still to come."""
    return evaluation_out(session, evaluations.cancel_evaluation(session, evaluation_id))


@router.post(
    "/evaluations/{evaluation_id}/repeat",
    Action.CONTROL,
    status_code=202,
    responses=problems({409: "It has not ended, or its images cannot be drawn any more."}),
)
def repeat_evaluation(evaluation_id: Id, session: Writing, state: State) -> EvaluationOut:
    """Measure again; only images that are missing are drawn again."""
    job = evaluations.repeat_evaluation(session, evaluation_id, state.store)
    return evaluation_out(session, job)
