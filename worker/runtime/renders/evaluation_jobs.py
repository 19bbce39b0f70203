"""The io jobs that measure the images of an evaluation. Importing this module loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from operator import itemgetter
from typing import Any

from PIL import Image

from app.registry import automatic_evaluations, evaluations, weight_evaluations
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import AppError, Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import (
    EvaluatedStep,
    EvaluatedWeight,
    EvaluateRunArgs,
    EvaluateWeightsArgs,
    EvaluationArgs,
    EvaluationResult,
)
from app.registry.renders.grids import service as grids
from app.registry.renders.grids import views
from app.registry.runs import service as runs
from app.registry.tables.added_models import BaseModel
from worker.core.bases.family import BaseModelError
from worker.core.bases.load import load_base
from worker.core.evaluation.choice import Candidate
from worker.core.evaluation.drawing import through_autoencoder
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.evaluate import Captioned, Question, evaluate, evaluate_weights
from worker.core.evaluation.measures import Memory
from worker.core.evaluation.report import CheckpointReport, WeightReport
from worker.core.eyes import Eyes, EyesError, open_eyes
from worker.runtime.job_progress import IoWork, RefusedError, succeed

SHOWN_PROMPTS = 4
SHOWN_COPIES = 3
MISSING = (
    "{count} of {total} images of this evaluation could not be drawn or were deleted. "
    "Measure again to draw them."
)
DELETED = "The version of this evaluation was deleted. Restore it, then measure again."
GONE = "The images of this evaluation were deleted. Start a new one."


def run(work: IoWork) -> None:
    """Measure the images of a job's grid, or order them. Raises RefusedError."""
    args = work.job.arguments(EvaluationArgs)
    if not args.grid_id:
        _order(work)
        return
    with work.cancelable(result={}) as progress:
        base, found = _inputs(work, args)
        cells, done = grid_cells(work, args.grid_id), count(1)
        total = len(cells) + len(found)  # nearly: nobody asks for the captions by the base
        opened = partial(open_image, work)
        drawing = GridDrawing(args, cells, base, opened, lambda: progress(next(done), total))
        images = [Captioned(opened(sha256), text) for sha256, text in found]
        try:
            eyes = open_eyes(work.settings.evaluation_eyes)
            result = _measure(args, images, drawing, eyes, base.original_name)
        except (BaseModelError, EvaluationError, EyesError) as error:
            raise RefusedError("evaluation", str(error)) from error
        result = result.model_copy(update={"eyes": eyes.title, "eyes_use": eyes.use})
        with work.database.write() as session:
            succeed(session, work.lease, result)
            if result.card:
                weight_evaluations.keep_card(session, work.job, base, result.card)


def _order(work: IoWork) -> None:
    """Order the images of the quick form; if none fits, the result says why."""
    try:
        with work.database.read() as session:
            plan = automatic_evaluations.plan_at_end(session, work.subject_id)
    except (Conflict, InvalidInput, NotFound) as error:
        work.succeed(EvaluationResult(notes=(error.detail,)))
        return
    with work.database.write() as session:
        automatic_evaluations.start_planned(session, work.lease.claim, plan, work.store)


def _inputs(work: IoWork, args: EvaluationArgs) -> tuple[BaseModel, list[tuple[str, str]]]:
    """The base model, and the images to compare with: their hashes and captions."""
    with work.database.read() as session:
        try:
            if isinstance(args, EvaluateWeightsArgs):
                base, found = _images_of_version(session, work.subject_id, args)
            else:
                assert isinstance(args, EvaluateRunArgs)
                base, found = _images_of_run(session, work.subject_id, args)
            base_models.require_ready(base)
        except AppError as error:
            raise RefusedError("gone", error.detail) from error
    return base, found


def grid_cells(work: IoWork, grid_id: int) -> Mapping[int, str]:
    """The hash of the image in each cell. Raises RefusedError if some are missing."""
    with work.database.read() as session:
        try:
            view = views.grid_view(session, grids.get_grid(session, grid_id))
        except NotFound as error:
            raise RefusedError("gone", GONE) from error
    found = {cell.place: cell.image.sha256 for cell in view.cells if cell.image}
    if missing := len(view.cells) - len(found):
        raise RefusedError("missing", MISSING.format(count=missing, total=len(view.cells)))
    return found


def open_image(work: IoWork, sha256: str) -> Image.Image:
    with Image.open(work.store.local_path(sha256, work.scratch)) as image:
        return image.convert("RGB")


def _images_of_run(
    session: Session, run_id: int, args: EvaluateRunArgs
) -> tuple[BaseModel, list[tuple[str, str]]]:
    run = runs.get_run(session, run_id)
    images = evaluations.run_images(session, run)
    places = (*args.trained, *args.held_out)
    found = [
        (images[place].sha256, text) for place, text in zip(places, args.captions, strict=True)
    ]
    return base_models.get_base_model(session, run.base_model_id), found


def _images_of_version(
    session: Session, version_id: int, args: EvaluateWeightsArgs
) -> tuple[BaseModel, list[tuple[str, str]]]:
    made = weight_evaluations.subject_of(session, version_id)
    if made is None:
        raise NotFound(DELETED)
    items = weight_evaluations.style_items(session, made[1], args.dataset_id)
    if not items:
        raise NotFound(weight_evaluations.NO_IMAGES)
    found = [(item["clean_sha256"], "") for item in items]
    return base_models.get_base_model(session, args.base_model_id), found


def _measure(
    args: EvaluationArgs, images: Sequence[Captioned], drawing: GridDrawing, eyes: Eyes, base: str
) -> EvaluationResult:
    """`base`: its name. Raises BaseModelError, EvaluationError and EyesError."""
    try:
        if isinstance(args, EvaluateWeightsArgs):
            question = Question(args.prompts, args.subjects, images)
            report = evaluate_weights(question, args.weights, drawing=drawing, eyes=eyes)
            return _result_of_weights(report, base)
        assert isinstance(args, EvaluateRunArgs)
        trained, held_out = images[: len(args.trained)], images[len(args.trained) :]
        question = Question(args.prompts, args.subjects, trained, held_out, args.plain)
        return _result(args, evaluate(question, args.candidates, drawing=drawing, eyes=eyes))
    except NotMeasured as error:
        return EvaluationResult(notes=(str(error),))


class GridDrawing:
    """The images of a grid, as `evaluate` asks for them."""

    def __init__(
        self,
        args: EvaluationArgs,
        cells: Mapping[int, str],
        base: BaseModel,
        open_image: Callable[[str], Image.Image],
        on_image: Callable[[], None],
    ) -> None:
        self._columns = [None, *args.candidates]
        self._rows = [prompt for prompts in args.row_groups for prompt in prompts]
        self._cells = cells
        self._base = base
        self._open = open_image
        self._on_image = on_image

    def images(self, candidate: str | None, prompts: Sequence[str]) -> list[Image.Image]:
        """The images in the column of a candidate, of the prompts or of the captions."""
        width, column = len(self._columns), self._columns.index(candidate)
        starts = range(len(self._rows) - len(prompts) + 1)
        first = next(at for at in starts if self._rows[at : at + len(prompts)] == [*prompts])
        found = []
        for row in range(first, first + len(prompts)):
            found.append(self._open(self._cells[row * width + column]))
            self._on_image()
        return found

    def through_autoencoder(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images as the base can draw them, at its native size."""
        loaded = load_base(self._base.location, components=["vae"])
        found = []
        for image in images:
            found.append(through_autoencoder(loaded.vae, image, side=loaded.info.resolution))
            self._on_image()
        return found


def _result(args: EvaluateRunArgs, report: CheckpointReport) -> EvaluationResult:
    choice, steps = report.choice, dict(zip(args.candidates, args.steps, strict=True))
    drawn = [at for at, caption in enumerate(args.captions[: len(args.trained)]) if caption]
    rows = [
        EvaluatedStep(
            step=steps[one.name],
            **_measures(one),
            left_out=choice.left_out.get(one.name, ""),
            is_equal=one.name in choice.equal,
            closest=_closest(one.memory, drawn),
        )
        for one in report.candidates
    ]
    return EvaluationResult(
        steps=tuple(rows),
        recommended=steps.get(choice.name or ""),
        reason=choice.reason,
        deciding=tuple(report.deciding[:SHOWN_PROMPTS]),
        notes=tuple(report.notes),
    )


def _result_of_weights(report: WeightReport, base: str) -> EvaluationResult:
    return EvaluationResult(
        weights=tuple(
            EvaluatedWeight(weight=one.weight, **_measures(one)) for one in report.candidates
        ),
        card=report.card and replace(report.card, base=base),
        notes=tuple(report.notes),
    )


def _measures(one: Candidate) -> dict[str, Any]:
    return {**asdict(one.style_interval), "style": one.style_interval.mean, **one.figures}


def _closest(memory: Memory | None, drawn: Sequence[int]) -> tuple[tuple[int, float], ...]:
    pairs = zip(drawn, memory.distances, strict=True) if memory else ()
    return tuple(sorted(pairs, key=itemgetter(1))[:SHOWN_COPIES])
