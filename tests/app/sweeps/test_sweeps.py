"""Sweeps: what they refuse and cost, how they go on, and what they find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import col, select

from app.registry.datasets import service as datasets
from app.registry.deletion.sweeps import delete_sweep_others
from app.registry.errors import Conflict, InvalidInput
from app.registry.job_kinds.kinds import AdvanceSweepArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import changing, own_presets
from app.registry.runs import service as runs
from app.registry.runs.requests import create_run
from app.registry.state import AppState
from app.registry.sweeps import service
from app.registry.sweeps.plan import SweepRequest, plan_sweep
from app.registry.sweeps.records import SweepResult, read_plan, read_result
from app.registry.tables.adapters import Adapter, is_listed
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run, Stage
from tests import fake_sweeps, fake_workers


@pytest.fixture
def images(state: AppState) -> Dataset:
    fake_workers.measured_base(state)
    return fake_sweeps.images_of_style(state)


def clear(stage: Stage, place: int, seed: int) -> float:
    """Rank 8 is better than the others, by far more than a seed changes."""
    noise = 0.004 * ((7 * place + 3 * seed) % 5)
    return [0.2, 0.5, 0.8][place] * (0.7 if stage is Stage.HALF else 1) + noise


def equal(stage: Stage, place: int, seed: int) -> float:
    """No difference beyond what a seed changes."""
    return 0.6 + 0.04 * ((7 * place + 3 * seed + place * seed) % 5) + 0.0001 * place


def refused(state: AppState, wanted: SweepRequest) -> dict[str, str]:
    with state.database.read() as session, pytest.raises(InvalidInput) as error:
        plan_sweep(session, wanted)
    return error.value.fields


def all_runs(state: AppState, sweep_id: int) -> list[Run]:
    with state.database.read() as session:
        return service.runs_of(session, service.get_sweep(session, sweep_id))


def result_of(state: AppState, sweep_id: int) -> SweepResult:
    return read_result(fake_sweeps.read(state, sweep_id))


def test_a_clear_winner_is_found_and_confirmed(state: AppState, images: Dataset) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    own = all_runs(state, sweep_id)
    assert len(own) == 6
    assert {run.pause_at for run in own} == {20}
    assert len({run.dataset_version_id for run in own}) == 1
    assert {run.config["seed"] for run in own} == {0, 1}
    assert {run.config["validation_seed"] for run in own} == {0}
    assert own[0].name == "Rank of Linocut: rank 2, seed 0"

    with state.database.write() as session, pytest.raises(Conflict, match="part of a sweep"):
        changing.change_settings(session, own[0].key, {"steps": 60})

    fake_sweeps.train(state)
    assert {run.status for run in all_runs(state, sweep_id)} == {JobStatus.PAUSED}
    fake_sweeps.work(state, clear)
    assert fake_sweeps.read(state, sweep_id).stage == Stage.FULL
    found = {(run.sweep_place, run.status, run.pause_at) for run in all_runs(state, sweep_id)}
    ended, goes_on = (JobStatus.SUCCEEDED, 20), (JobStatus.QUEUED, None)
    assert found == {(0, *ended), (1, *goes_on), (2, *goes_on)}

    fake_sweeps.train(state)
    fake_sweeps.work(state, clear)
    last = all_runs(state, sweep_id)[6:]
    assert [(run.sweep_place, run.config["seed"], run.status) for run in last] == [
        (2, 2, JobStatus.QUEUED),
        (1, 2, JobStatus.QUEUED),
    ]
    fake_sweeps.run_to_the_end(state, clear)
    sweep, result = fake_sweeps.read(state, sweep_id), result_of(state, sweep_id)
    assert (sweep.status, result.winner) == (JobStatus.SUCCEEDED, 2)
    assert result.reason.startswith("Rank 8 wins. It has 0.31 more style than rank 4")
    assert result.confirmation is not None
    assert result.confirmation.seed == 2
    with state.database.read() as session:
        assert not session.exec(select(Adapter).where(is_listed())).all()  # nobody asked for one
    with state.database.write() as session:
        assert service.use_configuration(session, sweep_id).version.steps == 40
        preset = own_presets.save_run_as_preset(session, last[0].key, "Linocut, found")
        assert preset.config["rank"] == 8
        assert not {"seed", "evaluate", "keep_adapters"} & preset.config.keys()


def test_without_a_difference_no_winner_is_named(state: AppState, images: Dataset) -> None:
    wanted = fake_sweeps.request(images, axes={"rank": [4, 8]})
    sweep_id = fake_sweeps.start(state, wanted)
    fake_sweeps.run_to_the_end(state, equal)
    result = result_of(state, sweep_id)
    assert result.winner is None
    assert result.found is not None
    assert set(result.found.equal) == {0, 1}
    assert result.found.more_seeds > 0
    assert result.found.cost.seconds is not None
    assert result.reason.startswith("No difference found at this cost")
    assert "more seeds of each would find one of 0.05" in result.reason
    with state.database.write() as session, pytest.raises(Conflict, match="no winner"):
        service.use_configuration(session, sweep_id)
    with state.database.write() as session:
        service.add_seeds(session, sweep_id, 2)
    assert len(all_runs(state, sweep_id)) == 8
    fake_sweeps.run_to_the_end(state, clear)
    again = result_of(state, sweep_id)
    assert again.looks == 2
    assert len(read_plan(fake_sweeps.read(state, sweep_id)).seeds) == 4
    with state.database.write() as session:  # any configuration can be used
        assert service.use_configuration(session, sweep_id, 0).version.steps == 40


def test_one_that_is_ahead_by_luck_is_not_confirmed(state: AppState, images: Dataset) -> None:
    def lucky(stage: Stage, place: int, seed: int) -> float:
        return 0.5 if stage is Stage.CONFIRM else clear(stage, place, seed)

    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.run_to_the_end(state, lucky)
    result = result_of(state, sweep_id)
    assert result.winner is None
    assert "not with a seed and prompts that did not choose it" in result.reason
    with state.database.write() as session:
        delete_sweep_others(session, sweep_id, 0)
    with state.database.write() as session, pytest.raises(Conflict, match="runs of rank 8 were"):
        service.add_seeds(session, sweep_id, 2)


@pytest.mark.parametrize("how", ["diverged", "ruined"])
def test_no_winner_if_nothing_is_worth_keeping(state: AppState, images: Dataset, how: str) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    is_diverged = how == "diverged"
    fake_sweeps.run_to_the_end(state, lambda *_: -0.2, diverge=lambda run: is_diverged)
    sweep, result = fake_sweeps.read(state, sweep_id), result_of(state, sweep_id)
    assert sweep.status == JobStatus.SUCCEEDED
    assert result.winner is None
    assert result.reason.startswith("No winner. None is left to compare: ")
    assert "rank 4: " + ("diverged at 10" if is_diverged else "ruined") in result.reason


def test_what_diverges_is_left_out(state: AppState, images: Dataset) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.run_to_the_end(
        state, clear, diverge=lambda run: run.sweep_place == 0 and run.config["seed"] == 1
    )
    result = result_of(state, sweep_id)
    assert result.left_out == {0: "diverged at 10"}
    assert result.winner == 2
    assert all(run.state.is_final for run in all_runs(state, sweep_id))


def test_a_paused_sweep_holds_its_runs_back(state: AppState, images: Dataset) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    for _ in range(2):
        with state.database.write() as session:
            service.pause_sweep(session, sweep_id)
    assert fake_sweeps.train(state) == []
    fake_sweeps.work(state, clear)
    with state.database.write() as session:
        assert service.resume_sweep(session, sweep_id).status == JobStatus.RUNNING
    fake_sweeps.run_to_the_end(state, clear)
    assert result_of(state, sweep_id).winner == 2


def test_a_canceled_sweep_cancels_what_is_left(state: AppState, images: Dataset) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.train(state)
    for _ in range(2):
        with state.database.write() as session:
            service.cancel_sweep(session, sweep_id)
    assert {run.status for run in all_runs(state, sweep_id)} == {JobStatus.CANCELED}
    fake_sweeps.work(state, clear)
    assert fake_sweeps.read(state, sweep_id).status == JobStatus.CANCELED
    with state.database.write() as session, pytest.raises(Conflict, match="was canceled"):
        service.resume_sweep(session, sweep_id)


def test_canceled_in_the_second_of_the_end(state: AppState, images: Dataset) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.run_to_the_end(state, clear)
    with state.database.write() as session, pytest.raises(Conflict, match="has finished already"):
        service.cancel_sweep(session, sweep_id)
    assert result_of(state, sweep_id).winner == 2


def test_images_that_cannot_be_measured_stop_the_sweep_until_somebody_lets_it_go_on(
    state: AppState, images: Dataset
) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.train(state)
    fake_sweeps.look(state, sweep_id)
    fake_workers.draw(state)
    with state.database.write() as session:
        while claimed := jobs.claim_next(session, IoJob, lease_seconds=60):
            job, claim = claimed
            failed = bool(job.kind == "advance_sweep" and job.arguments(AdvanceSweepArgs).grid_id)
            status = JobStatus.FAILED if failed else JobStatus.SUCCEEDED
            jobs.finish(session, IoJob, claim, status, error="The images are gone.")
            if failed:
                break
    fake_sweeps.work(state, clear)
    sweep = fake_sweeps.read(state, sweep_id)
    assert (sweep.status, sweep.error) == (JobStatus.FAILED, "The images are gone.")
    with state.database.write() as session:
        assert service.cancel_sweep(session, sweep_id).status == JobStatus.CANCELED
        session.rollback()
    with state.database.write() as session:
        service.resume_sweep(session, sweep_id)
    fake_sweeps.run_to_the_end(state, clear)
    assert result_of(state, sweep_id).winner == 2


@pytest.mark.parametrize(
    ("axes", "field", "says"),
    [
        ({"rank": []}, "rank", "no values"),
        ({"rank": [8]}, "configurations", "one configuration"),
        ({"rank": [8, 8]}, "configurations", "equal"),
        ({"rank": [8, 5_000]}, "rank", "5000: 256 at most"),
        ({"seed": [1, 2]}, "seed", "axis of their own"),
        ({"resolution": [64, 128]}, "resolution", "other images"),
        ({"validation_share": [0, 0.2]}, "validation_share", "held out"),
        ({"base_model": [1, 2]}, "base_model", "another training"),
        ({"wings": [1, 2]}, "wings", "no setting called “wings”"),
        ({"rank": ["x" * 1_000_000, 8]}, "rank", "whole number"),
        ({"x" * 1_000_000: [1, 2]}, "x" * 60, "no setting"),
        ({"rank": [*range(1, 14)], "alpha": [*range(1, 6)]}, "configurations", "65 configuration"),
        ({"rank": [*range(1, 200)] * 100, "alpha": [1, 2] * 9}, "configurations", "64"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    state: AppState, images: Dataset, axes: dict[str, Any], field: str, says: str
) -> None:
    fields = refused(state, fake_sweeps.request(images, axes=axes))
    assert says in fields[field]
    assert len(fields[field]) < 400


def test_too_many_runs_are_refused_with_their_cost(state: AppState, images: Dataset) -> None:
    wanted = fake_sweeps.request(images, axes={"rank": [*range(1, 14)]}, seeds=(0, 1, 2, 3, 4))
    assert "are 65 runs, about " in refused(state, wanted)["configurations"]
    assert "seeds" in refused(state, replace(wanted, seeds=(4,)))
    assert "seeds" in refused(state, replace(wanted, seeds=(4, 4)))


def test_few_images_are_refused(state: AppState) -> None:
    fake_workers.measured_base(state)
    wanted = fake_sweeps.request(fake_sweeps.images_of_style(state, 3))
    assert "at least 8 images" in refused(state, wanted)["dataset_id"]


def test_the_cost_is_known_before(state: AppState, images: Dataset) -> None:
    with state.database.read() as session:
        cost = plan_sweep(session, fake_sweeps.request(images)).plan.cost
    assert cost.runs == 6
    assert cost.images == 6 * (1 + 3 * 2 + 2 * 2 + 3)
    assert cost.seconds
    assert cost.size_bytes


def test_a_sweep_between_two_runs(state: AppState, images: Dataset) -> None:
    with state.database.write() as session:
        shared = fake_sweeps.request(images).run
        config = dict(shared.config or {})
        one = create_run(session, shared)
        two = create_run(session, replace(shared, config={**config, "rank": 3, "seed": 3}))
        wanted = service.sweep_between(session, one.key, two.key)
        assert wanted.axes == {"rank": [one.config["rank"], 3]}
        planned = plan_sweep(session, replace(wanted, subjects=6))
        assert [row.name for row in planned.plan.configurations][1] == "rank 3"
        with pytest.raises(InvalidInput, match="differ in no setting"):
            service.sweep_between(session, one.key, one.key)


def test_a_run_that_is_deleted_leaves_its_configuration_out(
    state: AppState, images: Dataset
) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.train(state)
    gone = all_runs(state, sweep_id)[0]
    with state.database.write() as session:
        runs.cancel_run(session, gone.key)
    fake_sweeps.run_to_the_end(state, clear)
    assert result_of(state, sweep_id).left_out == {0: "canceled at 20"}
    assert result_of(state, sweep_id).winner == 2
    with state.database.read() as session:
        waiting = select(Run).where(col(Run.status).in_(("queued", "paused")))
        assert not session.exec(waiting).all()


def test_a_base_model_or_dataset_that_goes_while_a_sweep_does(
    state: AppState, images: Dataset
) -> None:
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(images))
    fake_sweeps.train(state)
    with state.database.write() as session, pytest.raises(Conflict, match="uses this dataset"):
        datasets.delete_dataset(session, images.key)
    with state.database.write() as session:
        base = session.get_one(BaseModel, 1)
        base.status = ModelStatus.REMOVED
        session.add(base)
    fake_sweeps.work(state, clear)
    sweep = fake_sweeps.read(state, sweep_id)
    assert sweep.status == JobStatus.FAILED
    assert sweep.error is not None
    assert "no longer" in sweep.error or "removed" in sweep.error
    with state.database.write() as session:
        base = session.get_one(BaseModel, 1)
        base.status = ModelStatus.READY
        session.add(base)
        service.resume_sweep(session, sweep_id)
    fake_sweeps.run_to_the_end(state, clear)
    assert result_of(state, sweep_id).winner == 2
