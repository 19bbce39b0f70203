"""The clock of a job: what counts as its time, and what does not."""

from __future__ import annotations

import pytest

from worker.runtime.outages.job_clock import JobClock


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, clock: JobClock, seconds: float, *, step: float = 0.5) -> bool:
        """Let time pass while somebody looks; whether the limit was passed."""
        for _ in range(round(seconds / step)):
            self.seconds += step
            if clock.is_over():
                return True
        return False


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_job_has_its_limit_and_each_part_has_it_again(time: Time) -> None:
    clock = JobClock(10, now=time)
    assert not time.pass_by(clock, 9)
    clock.restart()
    assert not time.pass_by(clock, 10)
    assert time.pass_by(clock, 1)


def test_calls_to_storage_and_database_do_not_count_but_end_too(time: Time) -> None:
    clock = JobClock(10, call_limit=100, now=time)
    for _ in range(5):
        clock.begin_call()
        assert not time.pass_by(clock, 90)
        clock.end_call()
        assert not time.pass_by(clock, 1)
    clock.begin_call()
    assert time.pass_by(clock, 101)


@pytest.mark.parametrize("is_calling", [False, True])
def test_a_machine_that_sleeps_does_not_work(time: Time, is_calling: bool) -> None:
    clock = JobClock(10, call_limit=10, now=time)
    if is_calling:
        clock.begin_call()
    for _ in range(9):
        time.seconds += 3_600
        assert not clock.is_over()
    assert time.pass_by(clock, 2)


def test_a_limit_that_grows_with_the_input_leaves_what_was_counted(time: Time) -> None:
    clock = JobClock(5, now=time)
    assert not time.pass_by(clock, 4)
    clock.limit = 20
    assert not time.pass_by(clock, 16)
    assert time.pass_by(clock, 1)
