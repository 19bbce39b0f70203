"""Settings that change while a training runs: it can be resumed and repeated exactly."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.worker.training.conftest import MakeBase, Recorder
from worker.core.training.changes import Change, ChangeOrder, ChangingConfig
from worker.core.training.config import LrScheduler, TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import (
    CheckpointSaved,
    Commands,
    Notice,
    SampleSaved,
    SettingsChanged,
    StepDone,
)
from worker.core.training.optim import lr_factor
from worker.core.training.train import train

USUAL = TrainConfig(steps=300, checkpoint_every=100)
LONGER = Commands(change=ChangeOrder(7, {"steps": 8, "checkpoint_every": 3, "patience": 5}))


def test_a_change_holds_from_its_step_on() -> None:
    plan = ChangingConfig(USUAL)
    made = plan.change(120, {"steps": 500, "checkpoint_every": 100})
    assert made == Change(120, {"steps": 300}, {"steps": 500})
    plan.change(130, {"sample_every": 0})
    again = ChangingConfig(plan.config, plan.changes)
    assert again.first == USUAL
    assert [again.at(step).steps for step in (0, 119, 120, 400)] == [300, 300, 500, 500]
    assert [again.at(step).sample_every for step in (129, 130)] == [100, 0]
    assert again.lengths == [(120, 500)]


def test_a_change_of_nothing_is_answered_and_not_kept() -> None:
    plan = ChangingConfig(USUAL)
    assert plan.change(5, {"steps": 300}) == Change(5, {}, {})
    assert plan.changes == []


def test_a_training_ends_at_the_step_that_it_has_reached_meanwhile() -> None:
    assert ChangingConfig(USUAL).change(120, {"steps": 100}).after == {"steps": 120}


def test_after_a_rollback_a_change_waits_for_the_ones_before_it() -> None:
    plan = ChangingConfig(USUAL)
    plan.change(120, {"steps": 500})
    assert plan.change(100, {"steps": 400}).step == 120
    assert plan.at(119).steps == 300
    assert plan.at(120).steps == 400


@pytest.mark.parametrize("scheduler", [LrScheduler.COSINE, LrScheduler.LINEAR])
@pytest.mark.parametrize(("since", "steps"), [(50, 200), (50, 60), (95, 100), (3, 40)])
def test_the_rest_of_a_schedule_is_stretched_to_the_new_end(
    scheduler: LrScheduler, since: int, steps: int
) -> None:
    """Without a jump, and with the warmup as it was."""
    config = TrainConfig(steps=100, warmup_steps=10, lr_scheduler=scheduler)
    before = [lr_factor(step, config) for step in range(100)]
    after = [lr_factor(step, config, [(since, steps)]) for step in range(steps + 1)]
    kept = max(since, 10)
    assert after[: kept + 1] == pytest.approx(before[: kept + 1])
    assert after[steps] == pytest.approx(0, abs=1e-12)
    rest = after[kept:]
    assert rest == sorted(rest, reverse=True)
    middle = lr_factor((kept + 100) // 2, config)
    assert lr_factor((kept + steps) // 2, config, [(since, steps)]) == pytest.approx(
        middle, abs=0.06
    )


def test_cycles_go_on_where_they_are() -> None:
    config = TrainConfig(steps=100, lr_scheduler=LrScheduler.COSINE_RESTARTS, lr_cycles=2)
    lengths = [(50, 150)]  # one cycle is over; the other one takes 100 steps in place of 50
    assert lr_factor(50, config, lengths) == pytest.approx(1)
    assert lr_factor(100, config, lengths) == pytest.approx(0.5)


@pytest.mark.parametrize("scheduler", list(LrScheduler))
def test_changes_to_and_fro_within_a_step_change_no_rate(scheduler: LrScheduler) -> None:
    config = TrainConfig(steps=100, lr_scheduler=scheduler, warmup_steps=10)
    lengths = [(40, 70), (40, 900), (40, 100)]
    for step in range(100):
        assert lr_factor(step, config, lengths) == pytest.approx(lr_factor(step, config))


def _train(
    config: TrainConfig,
    images: Sequence[TrainingImage],
    make_base: MakeBase,
    out: Path,
    recorder: Recorder,
    changes: Sequence[Change] = (),
) -> bytes:
    trained = train(
        config, images, recorder, base=make_base(), out=out, cache=None, changes=changes
    )
    assert trained.path is not None
    return trained.path.read_bytes()


def test_a_changed_training_is_resumed_and_repeated_exactly(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    """Also one that is killed between the change and the next checkpoint."""
    config = short.model_copy(
        update={"sample_prompts": ["castle"], "sample_steps": 1, "sample_every": 0}
    )
    seen = Recorder({3: LONGER})
    adapter = _train(config, images, smallest_sd15, tmp_path / "whole", seen)
    (said,) = seen.of(SettingsChanged)
    assert said.number == 7
    assert said.change == Change(
        3,
        {"steps": 6, "checkpoint_every": 2, "patience": 0},
        {"steps": 8, "checkpoint_every": 3, "patience": 5},
    )
    assert [event.total for event in seen.of(StepDone)] == [6, 6, 6, *[8] * 5]
    assert [event.step for event in seen.of(CheckpointSaved)] == [2, 6, 8]
    assert any("cannot stop by itself" in event.text for event in seen.of(Notice))
    changed = config.model_copy(update=said.change.after)
    repeated = Recorder()
    assert adapter == _train(
        changed, images, smallest_sd15, tmp_path / "again", repeated, [said.change]
    )
    for kind in (StepDone, CheckpointSaved, SampleSaved):
        assert [event.step for event in repeated.of(kind)] == [
            event.step for event in seen.of(kind)
        ]
    rates = [[event.learning_rate for event in one.of(StepDone)] for one in (seen, repeated)]
    assert rates[0] == rates[1]
    killed = Recorder({3: LONGER}, fails_after=5)
    with pytest.raises(ConnectionResetError):
        _train(config, images, smallest_sd15, tmp_path / "killed", killed)
    resumed = Recorder()
    assert adapter == _train(
        changed, images, smallest_sd15, tmp_path / "killed", resumed, [said.change]
    )
    assert [event.step for event in resumed.of(StepDone)] == [3, 4, 5, 6, 7, 8]
    assert {event.total for event in resumed.of(StepDone)} == {8}


def test_a_training_can_be_shortened_to_the_step_it_has_reached(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(
        update={"sample_prompts": ["castle"], "sample_steps": 1, "sample_every": 0}
    )
    seen = Recorder({3: Commands(change=ChangeOrder(1, {"steps": 1}))})
    _train(config, images, smallest_sd15, tmp_path, seen)
    assert [event.step for event in seen.of(StepDone)] == [1, 2, 3]
    assert [event.step for event in seen.of(CheckpointSaved)] == [2, 3]
    assert [event.step for event in seen.of(SampleSaved)] == [0, 2, 3]
