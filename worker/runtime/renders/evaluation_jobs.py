"""The io jobs that measure the images of an evaluation. Importing this module loads torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

from PIL import Image

from app.registry import evaluations
from app.registry.base_models import service as base_models
from app.registry.db import Database
from app.registry.errors import NotFound
from app.registry.job_kinds.kinds import EvaluatedStep, EvaluateRunArgs, EvaluateRunResult
from app.registry.renders.grids import service as grids
from app.registry.renders.grids import views
from app.registry.runs import service as runs
from app.registry.storage.store import BlobStore
from app.registry.tables.base_models import BaseModel
from app.registry.tables.jobs import IoJob
from worker.core.bases.family import BaseModelError
from worker.core.bases.load import LoadedBase, load_base
from worker.core.evaluation.choice import Candidate
from worker.core.evaluation.drawing import through_autoencoder
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.evaluate import Captioned, Question, evaluate
from worker.core.evaluation.report import Report
from worker.core.eyes import open_eyes
from worker.runtime.job_progress import RefusedError, cancelable, succeed
from worker.runtime.lease import Lease

DIGITS = 4
SHOWN_PROMPTS = 4
SHOWN_COPIES = 3
MISSING = (
    "{count} of {total} images of this evaluation could not be drawn or were deleted. "
    "Measure again to draw them."
)
GONE = "The images of this evaluation were deleted. Start a new one."


class EvaluationJobs:
    """Measures the images of evaluations."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Measure the images of a job's grid. Raises RefusedError."""
        assert job.subject_id is not None
        args = job.arguments(EvaluateRunArgs)
        with cancelable(self._database, lease, stopping, result={}) as progress:
            base, images = self._inputs(job.subject_id, args)
            drawing = _GridDrawing(
                args, self._cells(args.grid_id), base, lambda sha256: self._open(sha256, scratch)
            )
            drawing.on_part = lambda done: progress(done, drawing.parts(len(images)))
            captioned = [
                Captioned(self._open(sha256, scratch), caption)
                for sha256, caption in zip(images, args.captions, strict=True)
            ]
            trained = captioned[: len(args.trained)]
            held_out = captioned[len(args.trained) :]
            question = Question(args.prompts, args.subjects, trained, held_out, args.plain)
            try:
                names = [_name(step) for step in args.steps]
                result = _result(args, evaluate(question, names, drawing=drawing, eyes=open_eyes()))
            except NotMeasured as error:
                result = EvaluateRunResult(notes=(str(error),))
            except (BaseModelError, EvaluationError) as error:
                raise RefusedError("evaluation", str(error)) from error
            with self._database.write() as session:
                succeed(session, lease, result)

    def _inputs(self, run_id: int, args: EvaluateRunArgs) -> tuple[BaseModel, list[str]]:
        """The base model, and the hashes of the trained and held-out images."""
        with self._database.read() as session:
            run = runs.get_run(session, run_id)
            base = base_models.get_base_model(session, run.base_model_id)
            base_models.require_ready(base)
            hashes = evaluations.image_hashes(session, run)
        places = [*args.trained, *args.held_out]
        if places and max(places) >= len(hashes):
            raise RefusedError("gone", "The images of this run were deleted for good.")
        return base, [hashes[place] for place in places]

    def _cells(self, grid_id: int) -> Mapping[int, str]:
        """The hash of the image in each cell. Raises RefusedError if some are missing."""
        with self._database.read() as session:
            try:
                view = views.grid_view(session, grids.get_grid(session, grid_id))
            except NotFound as error:
                raise RefusedError("gone", GONE) from error
        found = {cell.place: cell.image.sha256 for cell in view.cells if cell.image}
        if missing := len(view.cells) - len(found):
            raise RefusedError("missing", MISSING.format(count=missing, total=len(view.cells)))
        return found

    def _open(self, sha256: str, scratch: Path) -> Image.Image:
        with Image.open(self._store.local_path(sha256, scratch)) as image:
            return image.convert("RGB")


class _GridDrawing:
    """The images of a grid, as `evaluate` asks for them."""

    def __init__(
        self,
        args: EvaluateRunArgs,
        cells: Mapping[int, str],
        base: BaseModel,
        open_image: Callable[[str], Image.Image],
    ) -> None:
        self._columns = {None: 0} | {_name(step): 1 + at for at, step in enumerate(args.steps)}
        captions = [caption for caption in args.captions if caption]
        self._rows = [*args.prompts, *captions, *args.plain]
        self._parts = 2 + bool(args.plain)
        self._cells = cells
        self._base = base
        self._open = open_image
        self._done = count(1)
        self.on_part: Callable[[int], None] = lambda done: None

    def parts(self, images: int) -> int:
        """How often `on_part` is called for a dataset of so many images."""
        return images + self._parts * len(self._columns) - 1

    def images(self, candidate: str | None, prompts: Sequence[str]) -> list[Image.Image]:
        """The images in the column of a candidate, of the prompts or of the captions."""
        width, column = len(self._columns), self._columns[candidate]
        starts = range(len(self._rows) - len(prompts) + 1)
        first = next(at for at in starts if self._rows[at : at + len(prompts)] == [*prompts])
        rows = range(first, first + len(prompts))
        found = [self._open(self._cells[row * width + column]) for row in rows]
        self.on_part(next(self._done))
        return found

    def through_autoencoder(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images as the base can draw them, at its native size."""
        loaded = self._loaded
        found = []
        for image in images:
            found += through_autoencoder(loaded.vae, [image], side=loaded.info.resolution)
            self.on_part(next(self._done))
        return found

    @cached_property
    def _loaded(self) -> LoadedBase:
        return load_base(self._base.location, components=["vae"])


def _name(step: int) -> str:
    return f"step {step}"


def _result(args: EvaluateRunArgs, report: Report) -> EvaluateRunResult:
    choice = report.choice
    drawn = [at for at, caption in enumerate(args.captions[: len(args.trained)]) if caption]
    steps = [
        EvaluatedStep(
            step=step,
            style=_rounded(one.style_interval.mean),
            low=_rounded(one.style_interval.low),
            high=_rounded(one.style_interval.high),
            adherence=_rounded(one.mean_adherence),
            variety=_rounded(variety),
            copy_ratio=_rounded(one.memory.ratio if one.memory else None),
            leak=_rounded(one.leak),
            left_out=choice.left_out.get(one.name, ""),
            is_equal=one.name in choice.equal,
            closest=_closest(one, drawn),
        )
        for step, one, variety in zip(args.steps, report.candidates, report.varieties, strict=True)
    ]
    return EvaluateRunResult(
        steps=tuple(steps),
        recommended=next((step for step in args.steps if _name(step) == choice.name), None),
        reason=choice.reason,
        deciding=tuple(report.deciding[:SHOWN_PROMPTS]),
        notes=tuple(report.notes),
    )


def _closest(candidate: Candidate, drawn: Sequence[int]) -> tuple[tuple[int, float], ...]:
    memory = candidate.memory
    places = memory.closest[:SHOWN_COPIES] if memory else []
    return tuple((drawn[at], round(memory.distances[at], DIGITS)) for at in places if memory)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
