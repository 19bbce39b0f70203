"""Claims, leases and the fence, on both databases."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa
from sqlmodel import select

from app.registry.db import Database, make_engine, utcnow
from app.registry.errors import Conflict
from app.registry.job_kinds.job_types import LONG_KINDS
from app.registry.job_kinds.kinds import ExportAdapterArgs, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.owner import is_gone, new_token
from app.registry.jobs.reaper import Reaper
from app.registry.tables.jobs import IO_THREADS, Event, IoJob

RACERS = "forkserver" if sys.platform != "win32" else "spawn"
LEASE = 60.0
TICK = LEASE / 4


class Watch:
    """A reaper with a clock of its own, which this test moves."""

    def __init__(self, database: Database) -> None:
        self.now = 1000.0
        self.reaper = Reaper(database, lease_seconds=LEASE, clock=lambda: self.now)

    def look(self) -> int:
        """Look as a worker does, a quarter of a lease later."""
        self.now += TICK
        return self.reaper.look()

    def look_for_a_lease(self) -> int:
        """Look until an unchanged lease has been seen for its whole length."""
        return sum(self.look() for _ in range(5))


def reap(database: Database) -> int:
    """Release the jobs of silent workers, as another worker does a lease later."""
    return Watch(database).look_for_a_lease()


def queue_jobs(database: Database, count: int, **values: object) -> list[int]:
    with database.write() as session:
        return [jobs.enqueue(session, IoJob(kind="test", **values)).key for _ in range(count)]


def claim(database: Database, *, lease_seconds: float = LEASE) -> tuple[IoJob, jobs.Claim]:
    with database.write() as session:
        claimed = jobs.claim_next(session, IoJob, lease_seconds=lease_seconds)
    assert claimed is not None
    return claimed


def row(database: Database, job_id: int) -> IoJob:
    with database.read() as session:
        return session.get_one(IoJob, job_id)


def claim_all(database: Database) -> list[int]:
    mine = []
    while True:
        with database.write() as session:
            claimed = jobs.claim_next(session, IoJob, lease_seconds=LEASE)
            waiting = jobs.has_waiting(session, IoJob)
        if claimed is not None:
            mine.append(claimed[0].key)
        elif not waiting:
            return mine


def claim_all_in_process(url: str, found: Callable[[list[int]], None]) -> None:
    database = Database(make_engine(url))
    found(claim_all(database))
    database.dispose()


def test_threads_that_race_for_jobs_never_get_the_same(database: Database) -> None:
    ids = queue_jobs(database, 60)
    barrier = threading.Barrier(6)

    def race(_: int) -> list[int]:
        barrier.wait()
        return claim_all(database)

    with ThreadPoolExecutor(6) as pool:
        claimed = [job for mine in pool.map(race, range(6)) for job in mine]
    assert sorted(claimed) == ids


@pytest.mark.process
def test_processes_that_race_for_jobs_never_get_the_same(database: Database) -> None:
    ids = queue_jobs(database, 60)
    url = database.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context(RACERS)
    context.set_forkserver_preload([__name__])  # one process imports for all of them
    results = context.SimpleQueue()
    racers = [
        context.Process(target=claim_all_in_process, args=(url, results.put)) for _ in range(3)
    ]
    for racer in racers:
        racer.start()
    claimed = [job for _ in racers for job in results.get()]
    for racer in racers:
        racer.join()
    assert sorted(claimed) == ids


def test_long_jobs_that_race_leave_a_thread_to_the_short_ones(database: Database) -> None:
    with database.write() as session:
        for kind in (*LONG_KINDS, *LONG_KINDS):
            jobs.enqueue(session, IoJob(kind=kind))
    barrier = threading.Barrier(6)

    def race(_: int) -> tuple[IoJob, jobs.Claim] | None:
        barrier.wait()
        with database.write() as session:
            return jobs.claim_next(session, IoJob, lease_seconds=LEASE)

    with ThreadPoolExecutor(6) as pool:
        begun = [claimed for claimed in pool.map(race, range(6)) if claimed is not None]
    assert len(begun) == IO_THREADS - 1
    assert [job.kind for job, _ in begun].count(JobKind.DOWNLOAD_BASE) == 1
    with database.write() as session:
        assert not jobs.has_waiting(session, IoJob)
        export = ExportAdapterArgs(format="kohya", dtype="fp16")
        short = jobs.enqueue_io(session, export, subject_id=1).key
    assert claim(database)[0].key == short
    done = next(mine for job, mine in begun if job.kind != JobKind.DOWNLOAD_BASE)
    with database.write() as session:
        jobs.finish(session, IoJob, done, JobStatus.SUCCEEDED)
    assert claim(database)[0].kind in set(LONG_KINDS) - {JobKind.DOWNLOAD_BASE}


def test_the_best_job_goes_first(database: Database) -> None:
    (late,) = queue_jobs(database, 1, priority=5)
    (early,) = queue_jobs(database, 1, priority=5)
    (urgent,) = queue_jobs(database, 1, priority=-1)
    order = [claim(database)[0].key for _ in range(3)]
    assert order == [urgent, late, early]


def test_a_claim_counts_the_attempt_and_keeps_the_first_start(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    first, held = claim(database)
    assert (first.attempt, first.status) == (1, "running")
    with database.write() as session:
        jobs.give_up_or_retry(session, IoJob, held, code="crash", error="It crashed.")
    second, _ = claim(database)
    assert second.attempt == 2
    assert second.started_at == first.started_at
    assert second.owner_token != first.owner_token
    assert second.key == job_id


def test_a_job_given_back_does_not_count_the_attempt(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    for _ in range(5):
        _, held = claim(database)
        with database.write() as session:
            jobs.give_back(session, IoJob, held)
    assert (row(database, job_id).attempt, row(database, job_id).status) == (0, "queued")


def test_a_lease_that_is_renewed_is_never_released_whatever_the_clocks_say(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = queue_jobs(database, 1)
    _, held = claim(database)
    watch = Watch(database)
    for hours in (0, 1, -1, 3, -24, 0, 0, 0):
        jumped = utcnow() + timedelta(hours=hours)
        monkeypatch.setattr(jobs, "database_now", lambda _, now=jumped: now)
        with database.write() as session:
            jobs.renew(session, IoJob, held, lease_seconds=LEASE)
        assert watch.look() == 0
    assert row(database, job_id).status == JobStatus.RUNNING


def test_a_job_whose_lease_stood_still_for_its_whole_length_goes_back_to_the_queue(
    database: Database,
) -> None:
    (job_id,) = queue_jobs(database, 1)
    claim(database, lease_seconds=3600)
    watch = Watch(database)
    assert [watch.look() for _ in range(6)] == [0, 0, 0, 0, 1, 0]
    released = row(database, job_id)
    assert (released.status, released.owner_token, released.attempt) == ("queued", None, 1)


def test_a_lease_that_ran_out_long_ago_is_watched_first(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    _, held = claim(database, lease_seconds=-86_400)
    watch = Watch(database)
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]
    with database.write() as session:
        jobs.renew(session, IoJob, held, lease_seconds=LEASE)  # the owner wakes up in time
    assert watch.look() == 0
    assert row(database, job_id).status == JobStatus.RUNNING


def test_a_reaper_that_slept_too_watches_anew(database: Database) -> None:
    queue_jobs(database, 1)
    _, held = claim(database)
    watch = Watch(database)
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]
    watch.now += 3600  # the machine sleeps, or SIGSTOP reaches every process
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]
    with database.write() as session:
        jobs.renew(session, IoJob, held, lease_seconds=LEASE)
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]


def test_an_outage_of_the_database_costs_no_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_jobs(database, 1)
    claim(database)
    watch = Watch(database)
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]
    with monkeypatch.context() as away:
        away.setattr(Database, "read", unreachable)
        for _ in range(60):  # 15 leases
            with pytest.raises(sa.exc.OperationalError):
                watch.look()
    assert [watch.look() for _ in range(5)] == [0, 0, 0, 0, 1]


def test_a_write_that_failed_starts_the_watch_anew(database: Database) -> None:
    queue_jobs(database, 1)
    claim(database)
    watch = Watch(database)
    assert [watch.look() for _ in range(4)] == [0, 0, 0, 0]
    watch.reaper.forget()  # owners cannot renew either while SQLite is locked
    assert [watch.look() for _ in range(5)] == [0, 0, 0, 0, 1]


def unreachable(_: Database) -> NoReturn:
    raise sa.exc.OperationalError("SELECT", None, Exception("connection refused"))


def claim_and_die(url: str) -> None:
    """Claim a job and end without a word, as after SIGKILL."""
    claim(Database(make_engine(url)))
    os._exit(9)


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="the proof is read from /proc")
def test_the_job_of_a_process_that_is_proved_dead_is_released_at_once(
    database: Database,
) -> None:
    (job_id,) = queue_jobs(database, 1)
    url = database.engine.url.render_as_string(hide_password=False)
    dying = multiprocessing.get_context("spawn").Process(target=claim_and_die, args=(url,))
    dying.start()
    os.waitid(os.P_PID, dying.pid or 0, os.WEXITED | os.WNOWAIT)  # its exit code is not read yet
    assert Watch(database).look() == 1
    dying.join()
    assert (row(database, job_id).status, row(database, job_id).attempt) == ("queued", 1)


def test_an_owner_is_not_taken_for_dead_without_proof() -> None:
    mine = new_token()
    random, place, pid, started = mine.split(".")
    assert len(mine) <= 64
    assert not is_gone(mine)
    assert not is_gone(random)  # of an older version
    assert not is_gone(f"{random}.{'0' * len(place)}.{2**22 - 1}.{started}")  # another machine
    assert not is_gone(f"{random}.{place}.1.{start_of(1)}")  # somebody else's process
    assert is_gone(f"{random}.{place}.{pid}.{int(started) - 1}")  # its id was given out again


def start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_worker_that_lost_its_job_cannot_write(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    _, stale = claim(database)
    assert reap(database) == 1
    _, owner = claim(database)
    for attempt in (
        lambda session: jobs.renew(session, IoJob, stale, lease_seconds=LEASE),
        lambda session: jobs.update_owned(session, IoJob, stale, result={"by": "stale"}),
        lambda session: jobs.require_owner(session, IoJob, stale),
        lambda session: jobs.finish(session, IoJob, stale, JobStatus.SUCCEEDED),
        lambda session: jobs.give_back(session, IoJob, stale),
    ):
        with pytest.raises(jobs.LostLease), database.write() as session:
            attempt(session)
    assert row(database, job_id).owner_token == owner.token
    assert row(database, job_id).result == {}
    with database.write() as session:
        jobs.finish(session, IoJob, owner, JobStatus.SUCCEEDED, result={"by": "owner"})
    assert row(database, job_id).result == {"by": "owner"}


def test_a_job_that_kills_its_workers_is_given_up_after_three_attempts(
    database: Database,
) -> None:
    (job_id,) = queue_jobs(database, 1)
    for _ in range(3):
        claim(database)
        assert reap(database) == 1
    failed = row(database, job_id)
    assert (failed.status, failed.error_code, failed.attempt) == ("failed", "worker_lost", 3)
    assert failed.error is not None
    assert "3 times" in failed.error


def test_many_reapers_handle_an_expiry_once(database: Database) -> None:
    ids = queue_jobs(database, 10)
    for _ in ids:
        claim(database)
    watches = [Watch(database) for _ in range(4)]
    assert sum(watch.look() for _ in range(4) for watch in watches) == 0
    barrier = threading.Barrier(4)

    def race(number: int) -> int:
        barrier.wait()
        return watches[number].look()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(race, range(4))) == len(ids)
    with database.read() as session:
        events = session.exec(select(Event).where(Event.kind == "queued")).all()
    requeued = Counter(event.subject_id for event in events if event.data.get("was") == "running")
    assert requeued == Counter(ids)


def test_a_waiting_job_is_canceled_at_once_and_twice_is_no_mistake(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    for _ in range(2):
        with database.write() as session:
            found = session.get_one(IoJob, job_id)
            assert jobs.request_cancel(session, IoJob, found) is JobStatus.CANCELED
    assert row(database, job_id).status == JobStatus.CANCELED


def test_a_running_job_is_asked_to_end_and_ends_so_even_when_its_worker_is_lost(
    database: Database,
) -> None:
    (job_id,) = queue_jobs(database, 1)
    claim(database)
    with database.write() as session:
        found = session.get_one(IoJob, job_id)
        assert jobs.request_cancel(session, IoJob, found) is JobStatus.RUNNING
    assert row(database, job_id).cancel_requested
    assert reap(database) == 1
    assert row(database, job_id).status == JobStatus.CANCELED


def test_a_job_that_has_ended_cannot_be_canceled(database: Database) -> None:
    (job_id,) = queue_jobs(database, 1)
    _, held = claim(database)
    with database.write() as session:
        jobs.finish(session, IoJob, held, JobStatus.SUCCEEDED)
    with pytest.raises(Conflict), database.write() as session:
        jobs.request_cancel(session, IoJob, session.get_one(IoJob, job_id))
    assert row(database, job_id).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("turn", range(8))
def test_a_cancel_that_races_with_the_claim_leaves_one_winner(
    database: Database, turn: int
) -> None:
    (job_id,) = queue_jobs(database, 1)
    barrier = threading.Barrier(2)

    def take() -> bool:
        barrier.wait()
        with database.write() as session:
            return jobs.claim_next(session, IoJob, lease_seconds=LEASE) is not None

    def cancel() -> None:
        barrier.wait()
        with database.write() as session:
            jobs.request_cancel(session, IoJob, session.get_one(IoJob, job_id))

    with ThreadPoolExecutor(2) as pool:
        taken, canceled = pool.submit(take), pool.submit(cancel)
        canceled.result()
    found = row(database, job_id)
    if taken.result():
        assert (found.status, found.cancel_requested) == ("running", True)
    else:
        assert found.status == JobStatus.CANCELED


def test_hints_go_out_after_the_commit_and_once_per_queue(sqlite_database: Database) -> None:
    sent: list[tuple[str, int]] = []

    def send(queue: str) -> None:
        with sqlite_database.read() as session:
            sent.append((queue, len(session.exec(select(IoJob.id)).all())))

    database = Database(sqlite_database.engine, send)
    with database.write() as session:
        jobs.enqueue(session, IoJob(kind="a"))
        jobs.enqueue(session, IoJob(kind="b"))
        assert sent == []
    assert sent == [("io", 2)]


def test_no_hint_goes_out_for_what_was_rolled_back(sqlite_database: Database) -> None:
    sent: list[str] = []
    database = Database(sqlite_database.engine, sent.append)

    def change_of_mind() -> None:
        with database.write() as session:
            jobs.enqueue(session, IoJob(kind="a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_of_mind()
    assert sent == []


def test_leases_are_measured_by_the_clock_of_the_database(database: Database) -> None:
    queue_jobs(database, 1)
    job, _ = claim(database)
    assert job.lease_until is not None
    assert abs(job.lease_until - utcnow() - timedelta(seconds=LEASE)) < timedelta(seconds=10)
