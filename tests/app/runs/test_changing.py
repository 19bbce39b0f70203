"""Settings of a run that change before its end, and the events that say so."""

from __future__ import annotations

import pytest

from app.registry.errors import Conflict, InvalidInput
from app.registry.jobs import service as jobs
from app.registry.runs import changing, requests
from app.registry.runs.changing import CHANGED, change_settings, change_text, take_change
from app.registry.runs.rerun import train_again
from app.registry.runs.service import get_run, run_events
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.fake_workers import FakeTraining
from worker.core.training.changes import Change, ChangingConfig
from worker.core.training.config import TrainConfig


@pytest.fixture
def waiting(state: AppState) -> int:
    """A run of 40 steps that waits."""
    fake_workers.ready_base(state)
    return fake_workers.queued_run(state, fake_workers.dataset(state)).key


def change(state: AppState, run_id: int, **values: object) -> Run:
    with state.database.write() as session:
        return change_settings(session, run_id, values)


def take(state: AppState, training: FakeTraining, step: int) -> Run:
    """What the worker does once its trainer has taken the change at this step."""
    with state.database.write() as session:
        run = get_run(session, training.run_id)
        order = run.change_requested
        assert order is not None
        plan = ChangingConfig(
            TrainConfig.model_validate(run.config), [Change(**one) for one in run.changes]
        )
        return take_change(
            session, training.claim, order["number"], plan.change(step, order["values"])
        )


def said(state: AppState, run_id: int) -> list[str]:
    """The sentences of the changes, oldest first."""
    with state.database.read() as session:
        run = get_run(session, run_id)
        events = [one for one in run_events(session, run_id) if one.kind == CHANGED]
        return [change_text(run, one.data) for one in reversed(events)]


def test_a_run_that_waits_is_as_if_it_had_been_started_like_that(
    state: AppState, waiting: int
) -> None:
    run = change(state, waiting, steps=60, patience=2)
    assert (run.total_steps, run.config["steps"], run.config["patience"]) == (60, 60, 2)
    assert (run.changes, run.change_requested) == ([], None)
    assert said(state, waiting) == ["Steps: 40 → 60, Stop by itself after: 0 → 2 (from the start)"]


def test_a_change_while_it_trains_holds_from_the_step_that_the_trainer_says(
    state: AppState, waiting: int
) -> None:
    training = FakeTraining(state)
    training.train(12)
    run = change(state, waiting, steps=60)
    assert (run.total_steps, run.changes) == (40, [])
    assert said(state, waiting) == ["Steps: 40 → 60 (from the next step on)"]
    run = change(state, waiting, steps=50, sample_every=5)  # in its place, by somebody else
    assert run.change_requested is not None
    assert run.change_requested["values"] == {"steps": 50, "sample_every": 5}
    run = take(state, training, 14)
    assert (run.total_steps, run.config["steps"], run.config["sample_every"]) == (50, 50, 5)
    assert run.change_requested is None
    assert [(one["step"], one["before"]["steps"]) for one in run.changes] == [(14, 40)]
    assert said(state, waiting) == [
        "Steps: 40 → 60 (from step 14 on)",
        "Steps: 60 → 50, Sample every: 75 → 5 (from step 14 on)",
    ]


def test_an_order_that_was_changed_meanwhile_stays(state: AppState, waiting: int) -> None:
    training = FakeTraining(state)
    change(state, waiting, steps=60)
    with state.database.write() as session:
        number = get_run(session, waiting).change_requested["number"]  # type: ignore[index]
    change(state, waiting, steps=70)
    with state.database.write() as session:
        made = Change(3, {"steps": 40}, {"steps": 60})
        run = take_change(session, training.claim, number, made)
        assert run.change_requested is not None
        assert run.change_requested["values"] == {"steps": 70}
    assert said(state, waiting)[1] == "Steps: 60 → 70 (from the next step on)"


def test_fewer_steps_than_are_done_by_then_end_the_run_where_it_is(
    state: AppState, waiting: int
) -> None:
    training = FakeTraining(state)
    training.train(12)
    change(state, waiting, steps=12)
    assert take(state, training, 15).total_steps == 15
    assert said(state, waiting) == ["Steps: 40 → 15 (from step 15 on)"]


def test_the_same_values_again_change_nothing(state: AppState, waiting: int) -> None:
    change(state, waiting, steps=40)
    FakeTraining(state)
    change(state, waiting, steps=60)
    change(state, waiting, steps=60)
    assert len(said(state, waiting)) == 1


def test_a_run_that_goes_back_to_the_queue_takes_the_change_from_where_it_was(
    state: AppState, waiting: int
) -> None:
    training = FakeTraining(state)
    training.train(12)
    change(state, waiting, sample_every=7)  # not taken before the worker ends
    with state.database.write() as session:
        jobs.give_back(session, Run, training.claim)
    run = change(state, waiting, steps=90)
    assert run.total_steps == 90
    assert run.change_requested is None
    assert [(one["step"], one["after"]) for one in run.changes] == [
        (12, {"sample_every": 7, "steps": 90})
    ]
    assert said(state, waiting)[0].endswith("(from step 12 on)")


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (11, "12 steps are done: enter at least 12."),
        (0, "At least 1."),
        (100_001, "100,000"),
        ("many", "number"),
        (None, "number"),
    ],
)
def test_steps_that_cannot_be(state: AppState, waiting: int, steps: object, sentence: str) -> None:
    training = FakeTraining(state)
    training.train(12)
    with pytest.raises(InvalidInput) as refused:
        change(state, waiting, steps=steps)
    assert sentence in refused.value.fields["steps"]
    assert said(state, waiting) == []


def test_an_ended_run_says_to_continue_it(state: AppState, waiting: int) -> None:
    training = FakeTraining(state)
    training.train(40)
    change(state, waiting, steps=60)  # in the second of the end
    training.finish()
    assert said(state, waiting) == ["Steps: 40 → 60 (too late: it had ended)"]
    with pytest.raises(Conflict, match=r"has finished.*Continue training from one of its check"):
        change(state, waiting, steps=60)


def test_a_run_that_is_being_stopped_stays_as_it_is(state: AppState, waiting: int) -> None:
    FakeTraining(state)
    with state.database.write() as session:
        get_run(session, waiting).stop_requested = True
    with pytest.raises(Conflict, match="about to end"):
        change(state, waiting, steps=60)


def test_a_run_that_continues_another_is_changed_before_it_begins(
    state: AppState, waiting: int
) -> None:
    training = FakeTraining(state)
    training.train(20)
    training.checkpoint()
    training.finish()
    with state.database.write() as session:
        start = requests.StartCheckpoint(waiting, 20)
        wanted = requests.RunRequest(1, config={"steps": 60}, continues=start)
        child = requests.create_run(session, wanted).key
    run = change(state, child, steps=80)
    assert (run.total_steps, run.changes, run.change_requested) == (80, [], None)
    with pytest.raises(InvalidInput, match="20 steps are done: enter at least 21"):
        change(state, child, steps=20)


def test_a_repeat_has_the_changes_and_the_comparison_shows_them(
    state: AppState, waiting: int
) -> None:
    training = FakeTraining(state)
    training.train(12)
    change(state, waiting, steps=60)
    take(state, training, 12)
    with state.database.write() as session:
        again, _ = train_again(session, waiting)
        old = get_run(session, waiting)
        assert (again.changes, again.total_steps) == (old.changes, 60)
        assert changing.changes_words(again) == "Steps: 40 → 60 (from step 12 on)"
        texts = [one.data.get("text", "") for one in run_events(session, again.key)]
    assert any("changes at the same steps" in text for text in texts)
