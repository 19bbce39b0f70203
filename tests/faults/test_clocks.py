"""The clock of a machine jumps while a run trains: nobody loses a lease by it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from tests.faults import jobs
from tests.faults.conftest import Clockwork, work_of
from tests.faults.jobs import Work
from tests.faults.recovery import Stopwatch
from tests.faults.stacks import LEASE_SECONDS

LEASES_WATCHED = 4  # a reaper that compared clocks would have taken the run by then


@pytest.fixture
def work(clockwork: Clockwork, works: list[Work]) -> Work:
    return work_of(clockwork.stack, works)


@pytest.mark.parametrize("hours", [1, 0, -1, 2])
def test_a_clock_that_jumps_costs_nobody_an_attempt(
    clockwork: Clockwork, work: Work, hours: int, stopwatch: Stopwatch
) -> None:
    stack = clockwork.stack
    with work.untouched():
        before = work.progress()
        clockwork.clock.set(timedelta(hours=hours))
        stopwatch.start()
        jobs.until_rendered(stack, jobs.new_render(stack, f"a clock {hours} {before.step}"))
        stopwatch.stop(f"clock {hours:+} h: new render done")
        time.sleep(LEASES_WATCHED * LEASE_SECONDS)
        work.until_further(since=before)
        work.until_checkpoint()


def test_after_all_jumps_every_job_was_done_once(clockwork: Clockwork, work: Work) -> None:
    work.finish()
