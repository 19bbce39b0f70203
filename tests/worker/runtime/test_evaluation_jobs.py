"""Evaluations of runs: from the order over the images to the measures in the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select
from transformers import Dinov2Config, Dinov2Model

from app.registry import automatic_evaluations, evaluations, weight_evaluations
from app.registry.adapters import service as adapters
from app.registry.adapters.usual_weight import weight_card_of
from app.registry.db import utcnow
from app.registry.errors import AppError, Conflict
from app.registry.evaluations import EvaluationRequest
from app.registry.job_kinds.kinds import EvaluateRunArgs, EvaluationResult
from app.registry.jobs import listing
from app.registry.jobs import service as jobs
from app.registry.renders.grids import service as grids
from app.registry.runs import checkpoints, progress
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import AFTER_RUNS, IoJob
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from app.registry.weight_evaluations import WeightRequest
from tests.worker.runtime.checkpoint_rows import add_checkpoints
from tests.worker.runtime.job_loops import Registry, picture, wait_for
from worker.core.evaluation.subjects import EVERYDAY
from worker.runtime.io_jobs import IoJobs
from worker.runtime.render_jobs import RenderJobs

STEPS = (2, 4)
IMAGES = 9
CAPTIONS = {1: "", 4: "(shape)"}  # of trained images; the other ones can be drawn
SUBJECTS = 6
ASKED = EvaluationRequest(subjects=SUBJECTS, checkpoints=3)


@pytest.fixture(autouse=True)
def _one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "STEPS", 1)


@pytest.fixture
def run_id(registry: Registry, tmp_path: Path) -> int:
    """A run with two checkpoints on nine images, of which four are held out."""
    use_nine_images(registry)
    run_id = registry.new_run(validation_share=0.45)
    with registry.database.write() as session:
        add_checkpoints(registry, session, run_id, tmp_path, steps=STEPS)
    return run_id


def use_nine_images(registry: Registry) -> None:
    """Make the dataset one that a style can be measured of."""
    items = [
        {
            "sha256": (sha256 := registry.store.put_bytes(picture(number)).sha256),
            "clean_sha256": sha256,
            "caption": CAPTIONS.get(number, f"shape {number}"),
            "width": 64,
            "height": 64,
        }
        for number in range(IMAGES)
    ]
    with registry.database.write() as session:
        version = session.get_one(DatasetVersion, registry.version_id)
        version.items, version.image_count = items, len(items)


@pytest.fixture
def renders(registry: Registry) -> Iterator[None]:
    """A loop of render jobs at work."""
    work = RenderJobs(registry.settings, registry.database, registry.store)
    with registry.working(work):
        yield


@pytest.fixture
def measures(registry: Registry) -> Iterator[None]:
    """A loop of io jobs at work."""
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)):
        yield


def start(registry: Registry, run_id: int) -> int:
    with registry.database.read() as session:
        plan = evaluations.plan_evaluation(session, run_id, ASKED)
    with registry.database.write() as session:
        return evaluations.start_evaluation(session, plan, registry.store).key


def result_of(registry: Registry, evaluation_id: int) -> EvaluationResult:
    job = registry.until_final(IoJob, evaluation_id)
    assert (job.status, job.error) == ("succeeded", None)
    return job.outcome(EvaluationResult)


def tiny_dino(folder: Path) -> str:
    """A DINO model of random weights, as it lies on the Hub."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    plain = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain))
    return str(folder)


def test_checkpoints_are_measured_once_their_images_are_drawn(
    registry: Registry, run_id: int, tmp_path: Path
) -> None:
    evaluation_id = start(registry, run_id)
    args = registry.row(IoJob, evaluation_id).arguments(EvaluateRunArgs)
    assert (args.steps, len(args.prompts)) == (STEPS, SUBJECTS)
    assert args.prompts[0] == f"{args.subjects[0]}, chalk style"
    assert len(args.trained) + len(args.held_out) == IMAGES
    assert len(args.held_out) == 4
    assert args.plain == args.subjects  # without the trigger word
    assert args.captions.count("") == 2  # none, and one with a weight in it
    with registry.database.read() as session:
        assert len(grids.cells_of(session, args.grid_id)) == 3 * (2 * SUBJECTS + IMAGES - 2)
    assert {row.priority for row in registry.rows(Render)} == {evaluations.PRIORITY}
    assert registry.row(IoJob, evaluation_id).status == "queued"  # nothing is drawn yet

    work = RenderJobs(registry.settings, registry.database, registry.store)
    measures = IoJobs(registry.settings, registry.database, registry.store)
    with registry.working(measures), registry.working(work):
        result = result_of(registry, evaluation_id)
    assert result.eyes == "The embedded eyes"
    assert [one.step for one in result.steps] == list(STEPS)
    assert result.recommended in (*STEPS, None)
    assert result.reason
    assert all(one.low < one.style < one.high for one in result.steps)
    for one in result.steps:
        assert None not in (one.copy_ratio, one.leak, one.drift)
        assert one.inside is None  # six captions are too few
    assert all(args.captions[place] for one in result.steps for place, _ in one.closest)
    assert len(result.deciding) == 4
    assert set(result.deciding) < set(range(SUBJECTS))
    with registry.database.read() as session:
        assert listing.get_job(session, f"evaluate_run-{evaluation_id}").subject_id == run_id
        kept = evaluations.recommendation(session, run_id)
        assert kept == (result if result.recommended else None)

    def with_eyes(eyes: str) -> IoJobs:
        settings = registry.settings.model_copy(update={"evaluation_eyes": eyes})
        return IoJobs(settings, registry.database, registry.store)

    with registry.working(with_eyes("embedded")):
        again = result_of(registry, start(registry, run_id))  # every image is there
    assert again == result
    with registry.working(with_eyes(tiny_dino(tmp_path / "dino"))):
        other = result_of(registry, start(registry, run_id))
    assert other.eyes == "DINO"
    assert [one.style for one in other.steps] != [one.style for one in result.steps]
    with registry.working(with_eyes(str(tmp_path))):
        job = registry.until_final(IoJob, start(registry, run_id))
    assert "cannot be opened as eyes" in (job.error or "")


@pytest.mark.usefixtures("measures", "renders")
def test_weights_are_measured_and_the_card_is_kept_with_the_version(
    registry: Registry, run_id: int
) -> None:
    wanted = WeightRequest(subjects=SUBJECTS, weights=(6.0, 0.5, 1.5))
    with registry.database.read() as session:
        address = session.exec(select(Adapter).where(Adapter.run_id == run_id)).one()
        made = address, adapters.get_version(session, address, STEPS[1])
        draft = weight_evaluations.draft_weights(session, made, wanted)
        plan = evaluations.plan_images(session, draft)
    assert (draft.images, draft.args.weights) == (4 * SUBJECTS, (0.5, 1.5, 6.0))
    assert draft.args.prompts[0] == f"{draft.args.subjects[0]}, chalk style"
    with registry.database.write() as session:
        job_id = evaluations.start_evaluation(session, plan, registry.store).key
    job = registry.until_final(IoJob, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    result = job.outcome(EvaluationResult)
    assert [one.weight for one in result.weights] == [0.5, 1.5, 6.0]
    assert all(one.low < one.style < one.high for one in result.weights)
    best = max(result.weights, key=lambda one: one.patches)
    assert result.card is not None
    assert (result.card.best, result.card.base) == (best.weight, "starter")
    with registry.database.write() as session:
        version = session.get_one(AdapterVersion, draft.subject_id)
        base = session.get_one(BaseModel, registry.base_id)
        assert weight_card_of(version, base) == result.card
        assert version.usual_weight == 1.0  # it is proposed, not set
        copied = checkpoints.use_checkpoint(session, run_id, STEPS[1]).version
        assert copied.weight_cards == version.weight_cards
        session.get_one(DatasetVersion, registry.version_id).items = []
        emptied = evaluations.repeat_evaluation(session, job_id, registry.store).key
    assert registry.until_final(IoJob, emptied).error == weight_evaluations.NO_IMAGES
    with registry.database.write() as session:
        session.get_one(AdapterVersion, draft.subject_id).deleted_at = utcnow()
        again = evaluations.repeat_evaluation(session, job_id, registry.store).key
    assert registry.until_final(IoJob, again).error == (
        "The version of this evaluation was deleted. Restore it, then measure again."
    )


@pytest.mark.parametrize(
    "embedded_base",
    ["small_starter", pytest.param("zimage_folder", marks=pytest.mark.wide)],
    indirect=True,
)
@pytest.mark.usefixtures("measures")
def test_a_canceled_evaluation_draws_only_what_is_missing_when_it_is_repeated(
    registry: Registry, run_id: int
) -> None:
    evaluation_id = start(registry, run_id)
    for _ in range(2):  # canceling twice is no error
        with registry.database.write() as session:
            evaluations.cancel_evaluation(session, evaluation_id)
    assert registry.row(IoJob, evaluation_id).status == "canceled"
    assert {row.status for row in registry.rows(Render)} == {"canceled"}
    with registry.database.write() as session:
        repeated = evaluations.repeat_evaluation(session, evaluation_id, registry.store).key
        with pytest.raises(Conflict):
            evaluations.repeat_evaluation(session, repeated, registry.store)
    with registry.working(RenderJobs(registry.settings, registry.database, registry.store)):
        assert result_of(registry, repeated).steps
    with registry.database.write() as session, pytest.raises(Conflict):
        evaluations.cancel_evaluation(session, repeated)


@pytest.mark.usefixtures("measures")
def test_an_evaluation_without_its_images_says_so(registry: Registry, run_id: int) -> None:
    evaluation_id = start(registry, run_id)
    args = registry.row(IoJob, evaluation_id).arguments(EvaluateRunArgs)
    with registry.database.write() as session:
        grids.cancel_grid(session, args.grid_id)
    job = registry.until_final(IoJob, evaluation_id)
    assert job.error == (
        "57 of 57 images of this evaluation could not be drawn or were deleted. "
        "Measure again to draw them."
    )


@pytest.mark.usefixtures("measures", "renders")
def test_the_style_of_a_few_images_is_not_measured(registry: Registry, run_id: int) -> None:
    with registry.database.write() as session:
        version = session.get_one(DatasetVersion, registry.version_id)
        version.items, version.image_count = version.items[:4], 4
    result = result_of(registry, start(registry, run_id))
    assert (result.steps, result.recommended) == ((), None)
    assert "the dataset has 4 images" in result.notes[0]


def test_what_cannot_be_evaluated_is_explained(registry: Registry, run_id: int) -> None:
    def refusal(run: int, **asked: int) -> str:
        with registry.database.read() as session, pytest.raises(AppError) as caught:
            evaluations.plan_evaluation(session, run, EvaluationRequest(**asked))
        return caught.value.detail

    assert "Use 6 to 40 subjects" in refusal(run_id, subjects=5)
    assert "Compare 1 to 8 checkpoints" in refusal(run_id, checkpoints=9)
    assert "no checkpoint that can draw" in refusal(registry.new_run())
    assert "does not exist" in refusal(999)
    with registry.database.write() as session:
        version = session.get_one(DatasetVersion, registry.version_id)
        version.items = []
    assert "deleted for good" in refusal(run_id)
    with registry.database.write() as session:
        version = session.get_one(DatasetVersion, registry.version_id)
        version.items = [{"clean_sha256": name, "caption": " ".join(EVERYDAY)} for name in "abc"]
        version.image_count = 3
    assert "The captions leave" in refusal(run_id)


def ordered(registry: Registry) -> list[IoJob]:
    return registry.rows(IoJob, kind="evaluate_run")


def test_a_run_that_asked_for_it_is_evaluated_once_when_it_has_completed(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nine_images(registry)
    config = {"evaluate": True, "validation_share": 0.45, "checkpoint_every": 4}
    unasked = registry.new_run(evaluate=True)
    with registry.working(registry.train_jobs()):  # where the installation turns it off
        assert registry.until_final(Run, unasked).status == "succeeded"
    assert ordered(registry) == []

    # a training of seconds leaves no time for one image
    monkeypatch.setattr(automatic_evaluations, "SHARE", 1_000)
    monkeypatch.setattr(
        automatic_evaluations, "QUICK_FORMS", automatic_evaluations.QUICK_FORMS[-1:]
    )
    asking = registry.settings.model_copy(update={"evaluate_runs": True})
    registry = replace(registry, settings=asking)
    run_id = registry.new_run(**config)
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        run = registry.until_final(Run, run_id)
    (job,) = ordered(registry)
    assert (job.subject_id, job.status, job.priority) == (run_id, "queued", AFTER_RUNS)

    next_run = registry.new_run()  # it goes first
    with registry.database.write() as session:
        assert jobs.claim_next(session, IoJob, lease_seconds=60) is None
    registry.cancel(Run, next_run)
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)):
        wait_for(lambda: registry.rows(Render))
        next_run = registry.new_run()
        with registry.database.read() as session:
            assert not jobs.has_waiting(session, Render)
        registry.cancel(Run, next_run)
        with registry.working(RenderJobs(registry.settings, registry.database, registry.store)):
            result = result_of(registry, job.key)
    assert {row.priority for row in registry.rows(Render)} == {AFTER_RUNS}
    assert [one.step for one in result.steps] == [4, 8]
    assert all(one.copy_ratio is not None for one in result.steps)
    assert [one.key for one in ordered(registry)] == [job.key]
    assert registry.row(IoJob, job.key).finished_at > run.finished_at


@pytest.mark.usefixtures("measures")
def test_an_evaluation_that_takes_too_long_is_not_ordered_and_says_why(
    registry: Registry, run_id: int
) -> None:
    registry.cancel(Run, run_id)
    with registry.database.write() as session:
        run = session.get_one(Run, run_id)
        run.training_seconds, run.steps_per_second = 1.0, 8.0
        run.config = run.config | {"evaluate": True}
        progress.order_evaluation(session, run)
    (job,) = ordered(registry)
    result = result_of(registry, job.key)
    assert result.notes[0].startswith("Not compared by itself: even 39 images would take")
    assert registry.rows(Render) == []


def test_what_was_ordered_by_hand_is_not_ordered_again(registry: Registry, run_id: int) -> None:
    start(registry, run_id)
    with registry.database.read() as session, pytest.raises(Conflict) as caught:
        automatic_evaluations.plan_at_end(session, run_id)
    assert caught.value.detail == automatic_evaluations.BY_HAND
