"""PostgreSQL, the object store and Redis go away under a training, and come back.

One run trains through all of it, and another one waits behind it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.supervisor.conftest import alive
from tests.faults import jobs
from tests.faults.conftest import ScaledOut, watched_stack, work_of
from tests.faults.jobs import Work
from tests.faults.recovery import Stopwatch
from tests.faults.stacks import OUTAGE_SECONDS, TRAINER, WORKERS
from tests.worker.runtime.job_loops import wait_for

CHECKPOINT_PART = 20_000  # bytes: a checkpoint has more, an image and a list have less
QUEUES = ("train", "render", "io")


@pytest.fixture
def work(scaled_out: ScaledOut, works: list[Work]) -> Work:
    return work_of(scaled_out.stack, works)


@pytest.fixture(params=["refuses", "hangs"])
def take_away_store(
    scaled_out: ScaledOut, request: pytest.FixtureRequest
) -> Iterator[Callable[[], None]]:
    proxy = scaled_out.s3
    yield proxy.refuse if request.param == "refuses" else proxy.hang
    proxy.forward()


@pytest.fixture(params=["refuses", "hangs"])
def take_away_database(
    scaled_out: ScaledOut, request: pytest.FixtureRequest
) -> Iterator[Callable[[], None]]:
    proxy = scaled_out.postgres
    yield proxy.refuse if request.param == "refuses" else proxy.hang
    proxy.forward()


def test_a_store_that_is_away_pauses_claiming_and_costs_nobody_an_attempt(
    scaled_out: ScaledOut, work: Work, take_away_store: Callable[[], None], stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    with work.untouched():
        before = work.progress()
        take_away_store()
        render = jobs.new_render(stack, f"a kite {before.step}")
        time.sleep(OUTAGE_SECONDS)
        work.until_further(since=before)  # it trained without its store
        assert httpx.get(f"{stack.url}/healthz", timeout=20).status_code == 200
        assert jobs.get(stack, f"/renders/{render}")["status"] in ("queued", "running")
        scaled_out.s3.forward()
        stopwatch.start()
        jobs.until_rendered(stack, render)
        stopwatch.stop("object store back: waiting render done")
        work.until_checkpoint()
        stopwatch.stop("object store back: next checkpoint stored")


def test_a_database_that_is_away_costs_nobody_an_attempt(
    scaled_out: ScaledOut, work: Work, take_away_database: Callable[[], None], stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    with work.untouched():
        before = work.progress()
        render = jobs.new_render(stack, f"a drum {before.step}")
        take_away_database()
        ends = time.monotonic() + OUTAGE_SECONDS
        with stack.client() as api:
            answer = api.get("/runs")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{stack.url}/healthz", timeout=20).status_code == 200
        with work.computing():
            time.sleep(max(0.0, ends - time.monotonic()))
        scaled_out.postgres.forward()
        stopwatch.start()
        assert jobs.get(stack, f"/runs/{work.training}")["status"] == "running"
        stopwatch.stop("PostgreSQL back: pages answer")
        wait_for(lambda: work.progress().step > before.step)
        stopwatch.stop("PostgreSQL back: progress of the training written")
        jobs.until_rendered(stack, render)
        stopwatch.stop("PostgreSQL back: waiting render done")
        work.until_checkpoint()


def test_connections_that_are_reset_are_opened_again(
    scaled_out: ScaledOut, work: Work, stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    with work.untouched():
        stopwatch.start()
        for proxy in (scaled_out.postgres, scaled_out.s3, scaled_out.redis):
            proxy.reset()
        jobs.until_rendered(stack, jobs.new_render(stack, "a boot"))
        stopwatch.stop("all connections reset: new render done")
        work.until_further()


def test_half_open_connections_to_redis_are_replaced(
    scaled_out: ScaledOut, work: Work, stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    with work.untouched():
        newest = max(scaled_out.redis_server.clients())
        scaled_out.redis.forget()
        stopwatch.start()
        jobs.until_rendered(stack, jobs.new_render(stack, "a bell"))
        stopwatch.stop("Redis half-open: new render done, found by looking")
        wait_for(lambda: waits_again(scaled_out, newest), seconds=jobs.PATIENCE_SECONDS)
        stopwatch.stop("Redis half-open: every idle worker waits on a new connection")
        assert alive_workers(scaled_out)


def waits_again(scaled_out: ScaledOut, newest: int) -> bool:
    """True when the idle workers (the train worker is busy) wait on connections after `newest`."""
    waiting = [
        number
        for number, command in scaled_out.redis_server.clients().items()
        if "brpop" in command
    ]
    return len([number for number in waiting if number > newest]) >= len(QUEUES) - 1


def alive_workers(scaled_out: ScaledOut) -> bool:
    return all(scaled_out.stack.named(name) for name in WORKERS)


def test_a_redis_that_is_killed_and_comes_back_empty_delays_nothing_and_loses_nothing(
    scaled_out: ScaledOut, work: Work, stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    with work.untouched():
        scaled_out.redis_server.kill()
        stopwatch.start()
        first = jobs.new_render(stack, "a fox without a broker")
        jobs.until_rendered(stack, first)
        stopwatch.stop("Redis gone: new render done")
        ready = httpx.get(f"{stack.url}/readyz", timeout=20)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        scaled_out.redis_server.start()
        stopwatch.start()
        wait_for(lambda: httpx.get(f"{stack.url}/readyz").json()["status"] == "ready")
        stopwatch.stop("Redis back: ready again")
        jobs.until_rendered(stack, jobs.new_render(stack, "a fox with a broker"))
        work.until_further()


def test_a_full_redis_refuses_no_job_and_is_reported(
    scaled_out: ScaledOut, work: Work, stopwatch: Stopwatch
) -> None:
    stack, server = scaled_out.stack, scaled_out.redis_server
    with work.untouched():
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            stopwatch.start()
            jobs.until_rendered(stack, jobs.new_render(stack, "a crab"))
            stopwatch.stop("Redis full: new render done")
            wait_for(lambda: httpx.get(f"{stack.url}/readyz").json()["status"] == "degraded")
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")
        wait_for(lambda: httpx.get(f"{stack.url}/readyz").json()["status"] == "ready")


def test_messages_that_are_no_wake_ups_are_dropped_and_end_no_worker(
    scaled_out: ScaledOut, work: Work
) -> None:
    stack = scaled_out.stack
    pids = [stack.named(name) for name in WORKERS]
    with work.untouched():
        for queue in QUEUES:
            for message in ("no JSON", "{}", "[1, 2]", '{"body": "?", "headers": {}}'):
                scaled_out.redis_server.ask("LPUSH", f"brushwork:{queue}", message)
        jobs.until_rendered(stack, jobs.new_render(stack, "a crow"))
        wait_for(lambda: not scaled_out.redis_server.ask("LLEN", "brushwork:render"))
        work.until_further()
    assert [stack.named(name) for name in WORKERS] == pids


def test_a_checkpoint_that_is_cut_on_its_way_is_fetched_again(
    scaled_out: ScaledOut, work: Work, stopwatch: Stopwatch
) -> None:
    stack = scaled_out.stack
    resumed = work.progress()
    scaled_out.s3.cut_after(CHECKPOINT_PART)
    try:
        stopwatch.start()
        stack.kill(TRAINER)
        wait_for(lambda: work.progress().claims > resumed.claims)
        time.sleep(OUTAGE_SECONDS / 3)
    finally:
        scaled_out.s3.forward()
    work.until_further()
    state = work.state(work.training)
    assert state["resumed_at_step"] >= resumed.step - jobs.CONFIG["checkpoint_every"]
    assert work.is_at_work()


def test_another_machine_goes_on_where_the_first_one_was_lost(
    scaled_out: ScaledOut, work: Work, tmp_path: Path, stopwatch: Stopwatch
) -> None:
    """The last test of this stack: nothing of it is left."""
    lost = scaled_out.stack
    reached = jobs.newest_checkpoint(lost, work.training)
    pids = lost.pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stopwatch.start()
    wait_for(lambda: not any(alive(pid) for pid in pids))
    with watched_stack(
        tmp_path, scaled_out.services, database_url=scaled_out.database_url
    ) as other:
        taken_over = Work(other, work.dataset_id, work.training, work.waiting)
        wait_for(lambda: taken_over.state(work.training)["status"] == "running")
        taken_over.until_further()
        stopwatch.stop("machine lost: another one, started afterwards, trains on")
        assert taken_over.state(work.training)["resumed_at_step"] >= reached > 0
        taken_over.finish()
