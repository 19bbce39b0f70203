"""REST: evaluations of the checkpoints of a run."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.registry import evaluations
from app.registry.db import MAX_ID
from app.registry.evaluations import EvaluationRequest, EvaluationView
from app.registry.job_kinds.states import JobStatus
from app.web.answers import Answer
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import Id, State

router = APIRouter(tags=["evaluations"])

NOT_POSSIBLE = problems({409: "The run has no checkpoint or image left to compare."})


class EvaluationIn(BaseModel):
    """What to compare."""

    model_config = example(subjects=24, checkpoints=4)
    subjects: int = Field(
        evaluations.SUBJECTS,
        ge=evaluations.FEWEST_SUBJECTS,
        le=evaluations.MOST_SUBJECTS,
        description="Subjects to draw with each checkpoint, which no caption names.",
    )
    checkpoints: int = Field(
        evaluations.CHECKPOINTS,
        ge=1,
        le=evaluations.MOST_CHECKPOINTS,
        description="At most so many, spread over the run, the last one among them.",
    )


class EvaluatedCheckpointOut(Answer):
    """The measures of a checkpoint; null: not measured."""

    step: int = Field(description="Its step.")
    style: float | None = Field(description="0: as the base model draws, 1: as the dataset.")
    style_low: float | None = Field(description="Low end of its interval of 95 %.")
    style_high: float | None = Field(description="High end of its interval of 95 %.")
    adherence: float | None = Field(
        description="How far images show what the prompt says; 1: as the base model's."
    )
    variety: float | None = Field(
        description="Difference between images of different subjects; 1: as the base model's."
    )
    copy_ratio: float | None = Field(
        description="Below 0.5 it draws its training images again when asked with their captions."
    )
    leak: float | None = Field(
        description="Style of prompts without the trigger word: 0 if it comes with the word alone."
    )
    left_out: str | None = Field(description="Why it is not to be kept; null if nothing is wrong.")
    equal: bool = Field(description="True if it cannot be told from the recommended one.")


class EvaluationOut(Answer):
    """An evaluation of the checkpoints of a run."""

    address: ClassVar[str] = "/api/v1/evaluations/{id}"
    id: int = Field(description="Its id: poll `/evaluations/{id}`.")
    run_id: int = Field(description="The run.")
    grid_id: int = Field(description="The grid of its images.")
    status: JobStatus = Field(description="`queued` until all images are drawn.")
    progress: float = Field(description="Share of the work that is done, 0 to 1.")
    images: int = Field(description="Number of its images.")
    images_drawn: int = Field(description="Number of those that are there.")
    waits_for: str | None = Field(description="What it waits for during an outage, as a sentence.")
    error: str | None = Field(description="Why it failed, as a sentence.")
    recommended: int | None = Field(description="Step of the checkpoint to keep; null: none.")
    reason: str | None = Field(description="Why, as a sentence; null before the end.")
    checkpoints: list[EvaluatedCheckpointOut] = Field(
        description="Their measures by step; empty before the end, or if none was measured."
    )
    not_measured: list[str] = Field(description="What was not measured, and why, as sentences.")


def evaluation_out(view: EvaluationView) -> EvaluationOut:
    """An evaluation as the API shows it."""
    result = view.result
    checkpoints = [
        EvaluatedCheckpointOut.of(
            one,
            style_low=one.low,
            style_high=one.high,
            left_out=one.left_out or None,
            equal=one.is_equal,
        )
        for one in result.steps
    ]
    return EvaluationOut.of(
        view.job,
        run_id=view.job.subject_id,
        grid_id=view.args.grid_id,
        progress=view.progress,
        images=view.images,
        images_drawn=view.drawn,
        recommended=result.recommended,
        reason=result.reason or None,
        checkpoints=checkpoints,
        not_measured=list(result.notes),
    )


@router.post("/runs/{run_id}/evaluations", status_code=202, responses=NOT_POSSIBLE)
def evaluate_run(run_id: Id, body: EvaluationIn, state: State) -> EvaluationOut:
    """Compare the checkpoints of a run by style, adherence to the prompts, and copying.

    Its images are drawn behind everything a person waits for, then they are measured.
    """
    with state.database.read() as session:
        plan = evaluations.plan_evaluation(session, run_id, EvaluationRequest(**body.model_dump()))
    with state.database.write() as session:
        job = evaluations.start_evaluation(session, plan, state.store)
        return evaluation_out(evaluations.view_evaluation(session, job.key))


@router.get("/evaluations")
def list_evaluations(
    state: State,
    part: Part,
    run_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Only those of this run.")
    ] = None,
) -> list[EvaluationOut]:
    """List evaluations, newest first."""
    with state.database.read() as session:
        jobs = evaluations.list_evaluations(
            session, run_id=run_id, limit=part.size, before=part.after
        )
        shown = part.cut(jobs, lambda job: job.key)
        return [evaluation_out(evaluations.view_evaluation(session, job.key)) for job in shown]


@router.get("/evaluations/{evaluation_id}")
def get_evaluation(evaluation_id: Id, state: State) -> EvaluationOut:
    """Get an evaluation."""
    with state.database.read() as session:
        return evaluation_out(evaluations.view_evaluation(session, evaluation_id))


@router.post("/evaluations/{evaluation_id}/cancel", **CANCEL)
def cancel_evaluation(evaluation_id: Id, state: State) -> EvaluationOut:
    """Cancel an evaluation and the images that are still to come."""
    with state.database.write() as session:
        evaluations.cancel_evaluation(session, evaluation_id)
        return evaluation_out(evaluations.view_evaluation(session, evaluation_id))


@router.post(
    "/evaluations/{evaluation_id}/repeat",
    status_code=202,
    responses=problems({409: "It has not ended, or its images cannot be drawn any more."}),
)
def repeat_evaluation(evaluation_id: Id, state: State) -> EvaluationOut:
    """Measure again; only images that are missing are drawn again."""
    with state.database.write() as session:
        job = evaluations.repeat_evaluation(session, evaluation_id, state.store)
        return evaluation_out(evaluations.view_evaluation(session, job.key))
