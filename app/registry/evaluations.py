"""Evaluations: a grid of images of the same prompts, measured by a job once they are drawn.

Of a run's checkpoints, here: the grid has the base model and the checkpoints as columns, and as
rows subjects that no caption names, followed by captions of trained and of held-out images. Of the
weights of a version: `weight_evaluations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry import prompt_sets
from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.datasets.several_captions import item_captions
from app.registry.datasets.used_datasets import used_datasets
from app.registry.errors import Conflict, InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.kinds import (
    EVALUATIONS,
    EvaluateRunArgs,
    EvaluationArgs,
    EvaluationResult,
    JobKind,
    UsedPromptSet,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.prompt_sets import FEWEST_SUBJECTS
from app.registry.renders import drafts
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.plan import MAX_CELLS, GridPlan, plan_axes
from app.registry.renders.grids.views import GridView, grid_view
from app.registry.renders.requests import RenderRequest
from app.registry.runs import checkpoints
from app.registry.runs import service as runs
from app.registry.runs.presets import prompt_form_of
from app.registry.runs.progress import FIXED_LOSS, HELD_OUT, run_metrics, values_of
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.tables.axes import Axis, AxisKind, AxisValue
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import source_of
from app.registry.tables.renders import MAX_TITLE
from app.registry.tables.runs import Run
from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.subjects import (
    MOST_CAPTIONS,
    MOST_PLAIN,
    MOST_SUBJECTS,
    STEPS,
    named_subjects,
    propose_subjects,
    spread,
)
from worker.core.inference.config import MAX_PROMPT_CHARACTERS
from worker.core.inference.prompt_syntax import has_syntax
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage, WeightedCaption
from worker.core.training.data.split import held_out_places
from worker.core.training.presets import prompts_of

PRIORITY = 20  # after grids, which a person waits for
SUBJECTS = 24
CHECKPOINTS = 4
MOST_CHECKPOINTS = 8


@dataclass(frozen=True)
class EvaluationRequest:
    """What to compare: so many checkpoints of a run, spread over it, on so many subjects.

    `prompt_set`: names the subjects to draw in place of proposed ones. `captions`: at most so many
    of trained images, and of held-out ones; `plain`: prompts without the trigger word.
    """

    subjects: int = SUBJECTS
    checkpoints: int = CHECKPOINTS
    prompt_set: int | str | None = None
    captions: int = MOST_CAPTIONS
    plain: int = MOST_PLAIN


@dataclass(frozen=True)
class EvaluationDraft:
    """What an evaluation would compare; `columns`: the base model and the candidates.

    `subject_id`: the run, version or sweep. `title`: of the grid. `seconds`: of all its images,
    about; None while nothing is known of the base model's speed. `first_seed`: of the first row.
    """

    subject_id: int
    title: str
    base: BaseModel
    columns: Axis
    args: EvaluationArgs
    seconds: float | None = None
    first_seed: int = 0

    @property
    def rows(self) -> list[AxisValue]:
        """The prompts and captions, each with its place among its kind as its seed."""
        return [
            AxisValue(label=prompt, value={"prompt": prompt, "seed": seed})
            for prompts in self.args.row_groups
            for seed, prompt in enumerate(prompts, self.first_seed)
        ]

    @property
    def images(self) -> int:
        """The number of images to compare."""
        return len(self.columns.values) * sum(map(len, self.args.row_groups))


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that can be started, with its grid; nothing is stored."""

    draft: EvaluationDraft
    grid: GridPlan


def draft_evaluation(session: Session, run_id: int, wanted: EvaluationRequest) -> EvaluationDraft:
    """Check an evaluation and estimate its cost.

    Raises NotFound, Conflict for a run without checkpoints or images, and InvalidInput.
    """
    run = runs.get_run(session, run_id)
    steps, address = _candidates(session, run, wanted.checkpoints)
    images = run_images(session, run)
    config = TrainConfig.model_validate(run.config)
    held_out = held_out_places(images, config.validation_share, seed=config.measuring_seed)
    trained = [place for place in range(len(images)) if place not in held_out]
    texts = [text for image in images for text in image.texts]
    subjects, used = choose_subjects(session, texts, wanted.subjects, wanted.prompt_set)
    most = MAX_CELLS // (1 + len(steps))
    plain = subjects[: min(wanted.plain, most - len(subjects))] if run.trigger_word else []
    left = most - len(subjects) - len(plain)
    control = spread(sorted(held_out), min(wanted.captions, left // 2))
    chosen = spread(trained, min(wanted.captions, left - len(control)))
    form = prompt_form_of(session, run.dataset_id, run.trigger_word)
    args = EvaluateRunArgs(
        grid_id=0,
        prompt_set=used,
        steps=tuple(steps),
        subjects=tuple(subjects),
        prompts=tuple(prompts_of(subjects, form)),
        trained=tuple(chosen),
        held_out=tuple(control),
        captions=tuple(_drawn_caption(images[place]) for place in (*chosen, *control)),
        plain=tuple(plain),
    )
    base = base_models.get_base_model(session, run.base_model_id)
    title = f"Which checkpoint of {run.name}?"
    columns = adapter_columns([(f"Step {step:,}", address, step, 1) for step in steps])
    return with_seconds(session, EvaluationDraft(run.key, title, base, columns, args))


def choose_subjects(
    session: Session, captions: Sequence[str], count: int, prompt_set: int | str | None
) -> tuple[list[str], UsedPromptSet | None]:
    """The subjects of a prompt set, or as many that no caption names. Raises InvalidInput."""
    if prompt_set is not None:
        used, subjects = prompt_sets.find_version(session, prompt_set)
        named = tuple(named_subjects(subjects, captions))
        return subjects, used.model_copy(update={"named": named})
    if not FEWEST_SUBJECTS <= count <= MOST_SUBJECTS:
        raise invalid_field(
            "subjects", f"Use {FEWEST_SUBJECTS} to {MOST_SUBJECTS} subjects, not {count}."
        )
    try:
        return propose_subjects(captions, count), None
    except EvaluationError as error:
        raise invalid_field("subjects", str(error)) from error


def with_seconds(session: Session, draft: EvaluationDraft) -> EvaluationDraft:
    """The draft with the time that its images take, if that is known."""
    each = image_seconds(session, draft.base)
    return draft if each is None else replace(draft, seconds=each * draft.images)


def image_seconds(session: Session, base: BaseModel) -> float | None:
    """The time that an image to measure takes; None while the base model's speed is not known."""
    side = base.resolution or USUAL_SIDE
    return drafts.expected_seconds(session, base, steps=STEPS, width=side, height=side)


def plan_evaluation(session: Session, run_id: int, wanted: EvaluationRequest) -> EvaluationPlan:
    """Plan every image of an evaluation. Raises like `draft_evaluation`."""
    return plan_images(session, draft_evaluation(session, run_id, wanted))


def plan_images(
    session: Session, draft: EvaluationDraft, *, priority: int = PRIORITY
) -> EvaluationPlan:
    """Plan the grid of a draft. Raises InvalidInput for what cannot be drawn."""
    request = RenderRequest(prompt="", base_model=draft.base.key, seed=0, steps=STEPS)
    prompts = "\n".join(value.label for value in draft.rows)
    rows = Axis(kind=AxisKind.PROMPT, text=prompts, values=draft.rows)
    title = draft.title[:MAX_TITLE]
    grid = plan_axes(session, request, [draft.columns, rows], draft.base, title=title)
    return EvaluationPlan(draft, replace(grid, priority=priority))


def _candidates(session: Session, run: Run, most: int) -> tuple[list[int], Adapter]:
    """Steps of the checkpoints to compare, and the adapter that they are versions of."""
    if not 1 <= most <= MOST_CHECKPOINTS:
        raise invalid_field("checkpoints", f"Compare 1 to {MOST_CHECKPOINTS} checkpoints.")
    saved = checkpoints.list_checkpoints(session, run.key)
    steps = [row.step for row in reversed(saved) if row.version is not None]
    address = checkpoints.address_of(session, run.key)
    if not steps or address is None:
        raise Conflict("This run has no checkpoint that can draw images, so there is none to keep.")
    return spread(steps, most), address  # the last one among them: the first have hardly begun


def adapter_columns(candidates: Iterable[tuple[str, Adapter, int, float]]) -> Axis:
    """The base model, then versions of adapters: label, adapter, number, and weight of each."""
    values, texts = [AxisValue(label="Base model", value=None)], ["none"]
    for label, adapter, version, weight in candidates:
        value = {"adapter_id": adapter.key, "version": version, "weight": weight}
        values.append(AxisValue(label=label, value=value))
        texts.append(f"{adapter.slug}@{version}:{weight:g}")  # can be asked for again
    return Axis(kind=AxisKind.ADAPTER, text=", ".join(texts), values=values)


def run_images(session: Session, run: Run) -> list[TrainingImage]:
    """All images that a run was trained on, without their files. Raises Conflict if some are gone.

    Their order is that of the places which an evaluation names.
    """
    found = []
    for one in used_datasets(session, run):
        version = source_of(session, DatasetVersion, one.version_id)
        if not (version.items and version.is_kept):
            raise Conflict("Images of this run were deleted for good: no style is left to compare.")
        for item in version.items:
            texts = tuple(WeightedCaption(text) for text in item_captions(item))
            name = item["clean_sha256"]
            found.append(
                TrainingImage(Path(), name, item["caption"], captions=texts, dataset=one.place - 1)
            )
    return found


def _drawn_caption(image: TrainingImage) -> str:
    """Its caption; empty if prompts would read weights or an adapter in it, or not all of it."""
    caption = image.caption
    is_plain = len(caption) <= MAX_PROMPT_CHARACTERS and not has_syntax(caption)
    return caption if is_plain else ""


def start_evaluation(session: Session, plan: EvaluationPlan, store: BlobStore) -> IoJob:
    """Queue the images that are not there yet, and the job that measures them."""
    grid = grids.create_grid(session, plan.grid, store)
    args = plan.draft.args.model_copy(update={"grid_id": grid.key})
    return jobs.enqueue_io(session, args, subject_id=plan.draft.subject_id, priority=PRIORITY)


def get_evaluation(session: Session, evaluation_id: int) -> IoJob:
    """Look up an evaluation. Raises NotFound."""
    return jobs.get_io(session, evaluation_id, "evaluation", *EVALUATIONS)


def list_evaluations(
    session: Session,
    *,
    limit: int,
    run_id: int | None = None,
    version_id: int | None = None,
    before: int | None = None,
    status: JobStatus | None = None,
) -> list[IoJob]:
    """The newest evaluations, of a run, of a version or in a status; `before`: lower ids."""
    query = select(IoJob).where(col(IoJob.kind).in_(EVALUATIONS))
    if status is not None:
        query = query.where(IoJob.status == status)
    of_kinds = {JobKind.EVALUATE_RUN: run_id, JobKind.EVALUATE_WEIGHTS: version_id}
    for kind, subject_id in of_kinds.items():
        if subject_id is not None:
            query = query.where(IoJob.kind == kind, IoJob.subject_id == subject_id)
    if before is not None:
        query = query.where(col(IoJob.id) < before)
    return list(session.exec(query.order_by(col(IoJob.id).desc()).limit(limit)))


def recommendation(session: Session, run_id: int) -> EvaluationResult | None:
    """The result of the newest finished evaluation of a run, if it recommends a checkpoint."""
    newest = list_evaluations(session, run_id=run_id, status=JobStatus.SUCCEEDED, limit=1)
    result = newest[0].outcome(EvaluationResult) if newest else None
    return result if result and result.recommended is not None else None


@dataclass(frozen=True)
class EvaluationView:
    """An evaluation as it is now; `grid` is None once that was deleted for good.

    `args`: of checkpoints EvaluateRunArgs, of weights EvaluateWeightsArgs.
    """

    job: IoJob
    args: EvaluationArgs
    result: EvaluationResult
    grid: GridView | None

    @property
    def is_planned(self) -> bool:
        """False until the images of a quick form are chosen, and if none fits."""
        return bool(self.args.grid_id)

    @property
    def not_ordered(self) -> str:
        """Why a run was not compared by itself; empty if it was, or may be."""
        if self.is_planned or self.job.state.is_active:
            return ""
        return " ".join(self.result.notes) or self.job.error or ""

    @property
    def images(self) -> int:
        """The number of its images."""
        return len(self.grid.cells) if self.grid else 0

    @property
    def drawn(self) -> int:
        """The number of images that are there."""
        return self.grid.done if self.grid else 0

    @property
    def progress(self) -> float:
        """The share that is done, 0 to 1; measuring takes a tenth of the time or less."""
        if self.job.state is JobStatus.SUCCEEDED:
            return 1.0
        return 0.9 * self.drawn / max(1, self.images) + 0.1 * self.result.share

    def image_at(self, column: int, row: int) -> str | None:
        """The hash of the image of a row by a candidate, from 1, or by the base model (0)."""
        if self.grid is None:
            return None
        cell = self.grid.cells[row * len(self.grid.axes[0].values) + column]
        return cell.image.sha256 if cell.image else None


def view_evaluation(session: Session, job: IoJob) -> EvaluationView:
    """An evaluation with its images."""
    args, result = job.arguments(EvaluationArgs), job.outcome(EvaluationResult)
    grid = None
    with suppress(NotFound):
        grid = grid_view(session, grids.get_grid(session, args.grid_id))
    return EvaluationView(job, args, result, grid)


def loss_gaps(session: Session, run_id: int) -> dict[int, float]:
    """By step the loss on held-out images over that on trained ones, each as a share of the base's.

    Far above 1 a checkpoint predicts the images that it was trained on better than others.
    """
    keys = HELD_OUT[0], FIXED_LOSS
    metrics = run_metrics(session, run_id, keys=keys)
    held_out, trained = (values_of(metrics, key) for key in keys)
    base = held_out.pop(0, 0) / (trained.pop(0, 0) or 1)
    return {
        step: loss / trained[step] / base
        for step, loss in held_out.items()
        if base and trained.get(step)
    }


def evaluation_to_tell(session: Session, run_id: int) -> EvaluationView | None:
    """The newest evaluation of a run, while it is active or if no quick form fitted."""
    newest = list_evaluations(session, run_id=run_id, limit=1)
    if not newest:
        return None
    is_told = newest[0].state.is_active or not newest[0].arguments(EvaluateRunArgs).grid_id
    return view_evaluation(session, newest[0]) if is_told else None


def cancel_evaluation(session: Session, evaluation_id: int) -> IoJob:
    """Cancel an evaluation and the images that are still to come; idempotent. Raises Conflict."""
    job = get_evaluation(session, evaluation_id)
    jobs.request_cancel(session, IoJob, job)
    with suppress(Conflict, NotFound):  # all images are there, or the grid was deleted
        grids.cancel_grid(session, job.arguments(EvaluationArgs).grid_id)
    return job


def repeat_evaluation(session: Session, evaluation_id: int, store: BlobStore) -> IoJob:
    """Measure again what failed or was canceled, drawing only the images that are missing.

    Raises Conflict while it is active, InvalidInput if its images cannot be drawn any more.
    """
    job = get_evaluation(session, evaluation_id)
    if job.state.is_active:
        raise Conflict("This evaluation has not ended yet.")
    args = job.arguments(EvaluationArgs)
    plan = grids.plan_missing(session, args.grid_id) if args.grid_id else None
    if plan is not None:
        if plan.refused:
            raise InvalidInput(" ".join(dict.fromkeys(plan.refused.values())))
        grids.continue_grid(session, args.grid_id, replace(plan, priority=PRIORITY), store)
    return jobs.enqueue_io(session, args, subject_id=job.subject_id, priority=PRIORITY)
