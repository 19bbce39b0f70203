"""The io jobs that let a sweep go on and measure its images. Importing this module loads torch."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import count

from app.registry import evaluations
from app.registry.base_models import service as base_models
from app.registry.errors import AppError, NotFound
from app.registry.evaluations import EvaluationDraft
from app.registry.job_kinds.kinds import AdvanceSweepArgs, StepProgress
from app.registry.runs import service as runs
from app.registry.sweeps import advance
from app.registry.sweeps.records import Score
from app.registry.tables.runs import Stage
from worker.core.bases.family import BaseModelError
from worker.core.evaluation.choice import left_out_reason
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.evaluate import Captioned, Question, References
from worker.core.eyes import EyesError, open_eyes
from worker.runtime.job_progress import IoWork, RefusedError, succeed
from worker.runtime.outages.patience import reason_to_wait
from worker.runtime.renders.evaluation_jobs import GridDrawing, grid_cells, open_image


def run(work: IoWork) -> None:
    """Measure the images of a job's grid, or look how the sweep goes on. Raises RefusedError."""
    args = work.job.arguments(AdvanceSweepArgs)
    if args.grid_id:
        _measure(work, args)
        return
    with suppress(NotFound):  # it was deleted
        with work.database.write() as session:
            draft = advance.advance(session, work.subject_id)
        if draft is not None:
            _draw(work, draft)
    work.succeed(StepProgress())


def _draw(work: IoWork, draft: EvaluationDraft) -> None:
    try:
        with work.database.read() as session:  # planning many images takes seconds
            planned = evaluations.plan_images(session, draft)
    except AppError as error:
        if reason_to_wait(error) is not None:
            raise
        with work.database.write() as session:
            advance.fail_drawing(session, work.subject_id, error)
        return
    with work.database.write() as session:
        advance.start_drawing(session, planned, work.store)


def _measure(work: IoWork, args: AdvanceSweepArgs) -> None:
    with work.cancelable(result={}) as progress:
        try:
            with work.database.read() as session:
                base_id, hashes = advance.style_images(session, work.subject_id)
                base = base_models.get_base_model(session, base_id)
                base_models.require_ready(base)
                trained = {key: runs.get_run(session, key) for key in args.run_ids}
        except AppError as error:
            raise RefusedError("gone", error.detail) from error
        cells, done = grid_cells(work, args.grid_id), count(1)
        total = len(cells) + len(hashes)
        opened = partial(open_image, work)
        drawing = GridDrawing(args, cells, base, opened, lambda: progress(next(done), total))
        scores, problem, eyes = [], "", None
        try:
            eyes = open_eyes(work.settings.evaluation_eyes)
            images = [Captioned(opened(sha256), "") for sha256 in hashes]
            question = Question(args.prompts, args.subjects, images)
            references = References(question, drawing=drawing, eyes=eyes)
            for column, (key, step) in enumerate(
                zip(args.run_ids, args.steps, strict=True), start=1
            ):
                found = references.measure(str(key), drawing.images(str(key), args.prompts))
                made = trained[key]
                scores.append(
                    Score(
                        run_id=key,
                        place=made.sweep_place or 0,
                        seed=made.config["seed"],
                        step=step,
                        style=found.style_interval.mean,
                        parts=tuple(found.style.parts.tolist()),
                        adherence=found.mean_adherence,
                        ruined=left_out_reason(found),
                        grid_id=args.grid_id,
                        column=column,
                    )
                )
        except NotMeasured as error:
            problem = str(error)
        except (BaseModelError, EvaluationError, EyesError) as error:
            raise RefusedError("evaluation", str(error)) from error
        with work.database.write() as session:
            found_with = {"eyes": eyes.title if eyes else "", "not_measured": problem}
            stage = Stage(args.stage)
            with suppress(NotFound):  # deleted meanwhile
                advance.add_scores(session, work.subject_id, stage, scores, **found_with)
            succeed(session, work.lease, StepProgress())
