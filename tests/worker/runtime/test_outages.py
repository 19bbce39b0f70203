"""A storage, a database or a disk that cannot be used for a while: nothing fails of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest
from sqlmodel import select

from app.registry.db import Database
from app.registry.errors import StorageFullError
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.reaper import Reaper
from app.registry.runs.progress import run_metrics
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import Event, IoJob, WorkerPresence
from app.registry.tables.runs import Checkpoint, Run, Sample
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import CONFIG, PATIENCE_SECONDS, Registry, wait_for
from tests.worker.runtime.outages import SwitchedDatabase, SwitchedStore
from tests.worker.runtime.test_train_jobs import weights_of
from worker.runtime.attempts import report
from worker.runtime.job_loop import JobLoop
from worker.runtime.lease import Lease
from worker.runtime.outages import patience


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(patience, "LONGEST_SECONDS", 0.2)


class StoringJobs:
    """Work that does nothing but store a file, for the rows of the io queue."""

    table = IoJob
    device = machine = ""
    memory_bytes = 12_884_901_888

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store
        self.tried = 0

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        self.tried += 1
        self._store.put_bytes(b"made")
        with self._database.write() as session:
            jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED)


@dataclasses.dataclass
class Staged:
    """A loop that stores files, on a store and a database that can be switched off."""

    database: SwitchedDatabase
    store: SwitchedStore
    work: StoringJobs
    loop: JobLoop

    def queue(self, count: int) -> list[int]:
        with self.database.write() as session:
            keys = [jobs.enqueue(session, IoJob(kind="test")).key for _ in range(count)]
        self.loop.wake()
        return keys

    def rows(self, keys: list[int]) -> list[IoJob]:
        with self.database.read() as session:
            return [session.get_one(IoJob, key) for key in keys]

    def until_done(self, keys: list[int]) -> list[IoJob]:
        wait_for(lambda: all(row.state.is_final for row in self.rows(keys)))
        return self.rows(keys)


@pytest.fixture
def stage(database: Database, registry: Registry) -> Iterator[Staged]:
    store = SwitchedStore(registry.store)
    switched = SwitchedDatabase(database)
    work = StoringJobs(switched, cast("BlobStore", store))
    loop = JobLoop(switched, work, lease_seconds=2.0, check_storage=store.check)
    loop.start()
    yield Staged(switched, store, work, loop)
    switched.is_away.clear()
    store.come_back()
    loop.request_stop()
    assert loop.join(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("error", "words"),
    [(None, "Waiting for the storage"), (StorageFullError("The disk is full."), "disk is full")],
    ids=["away", "full"],
)
def test_queued_jobs_outlive_an_outage_of_the_storage(
    stage: Staged, error: Exception | None, words: str
) -> None:
    stage.store.leave(error)
    keys = stage.queue(5)
    wait_for(lambda: stage.store.refused > 6)
    rows = stage.rows(keys)
    assert {row.status for row in rows} <= {"queued", "running"}
    assert stage.work.tried == 1  # claims pause: the storage is asked, no other job is tried
    waiting = [row.waits_for for row in rows if row.waits_for]
    assert len(waiting) == 1
    assert words in waiting[0]
    assert max(row.attempt for row in rows) == 0
    stage.store.come_back()
    ended = stage.until_done(keys)
    assert {(row.status, row.attempt, row.waits_for) for row in ended} == {("succeeded", 1, None)}


def test_the_job_of_a_killed_worker_comes_before_those_that_waited_behind_it(
    sqlite_database: Database,
) -> None:
    program = "from app.registry.jobs.owner import new_token; print(new_token())"
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    with sqlite_database.write() as session:
        keys = [jobs.enqueue(session, IoJob(kind="test")).key for _ in range(2)]
        left = session.get_one(IoJob, keys[0])
        left.status, left.owner_token = JobStatus.RUNNING, killed.stdout.strip()
    order: list[int] = []

    class NotedJobs(StoringJobs):
        def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
            order.append(job.key)
            with sqlite_database.write() as session:
                jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED)

    work = NotedJobs(sqlite_database, cast("BlobStore", None))
    loop = JobLoop(sqlite_database, work, lease_seconds=60.0)
    look, may_look = Reaper.look, threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reaper, "look", lambda self: may_look.wait() and look(self))
        loop.start()
        time.sleep(0.3)
        assert not order  # nothing is claimed before the first look
        may_look.set()
        wait_for(lambda: len(order) == 2)
    loop.request_stop()
    assert loop.join(PATIENCE_SECONDS)
    assert order == keys


def test_queued_jobs_outlive_an_outage_of_the_database(stage: Staged) -> None:
    keys = stage.queue(3)
    stage.until_done(keys)
    stage.database.is_away.set()
    before = stage.database.refused
    wait_for(lambda: stage.database.refused > before + 4)
    stage.database.is_away.clear()
    ended = stage.until_done(stage.queue(3))
    assert {(row.status, row.attempt) for row in ended} == {("succeeded", 1)}


def test_a_job_whose_end_cannot_be_written_is_done_again_and_no_attempt_is_counted(
    stage: Staged,
) -> None:
    put = stage.work._store.put_bytes

    def store_as_the_database_leaves(data: bytes) -> object:
        stage.database.is_away.set()
        return put(data)

    stage.work._store.put_bytes = store_as_the_database_leaves  # type: ignore[method-assign]
    (key,) = stage.queue(1)
    before = stage.database.refused
    wait_for(lambda: stage.database.refused > before + 4)
    stage.work._store.put_bytes = put  # type: ignore[method-assign]
    stage.database.is_away.clear()
    (job,) = stage.until_done([key])
    assert (job.status, job.attempt) == ("succeeded", 1)


def test_a_worker_says_what_it_waits_for_and_stops_at_once(stage: Staged) -> None:
    stage.store.leave()
    stage.queue(1)

    def problem() -> str:
        with stage.database.read() as session:
            return "".join(row.problem for row in session.exec(select(WorkerPresence)))

    assert "connection refused" in wait_for(problem)
    with stage.database.read() as session:
        (row,) = session.exec(select(WorkerPresence))
        assert row.memory_bytes == StoringJobs.memory_bytes
    stage.loop.request_stop()
    assert stage.loop.join(PATIENCE_SECONDS)


class LargeJobs(StoringJobs):
    """Jobs whose files are too large for the disk, though a few bytes still fit."""

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        self.tried += 1
        raise StorageFullError("The disk is full.")


def test_pauses_grow_though_other_threads_look_for_jobs_and_find_none(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Recorded(patience.Backoff):
        def next(self) -> float:
            pauses.append(self._next)
            return super().next()

    monkeypatch.setattr(patience, "Backoff", Recorded)
    work = LargeJobs(sqlite_database, cast("BlobStore", None))
    loop = JobLoop(sqlite_database, work, lease_seconds=2.0, threads=2)
    with sqlite_database.write() as session:
        jobs.enqueue(session, IoJob(kind="test"))
    loop.start()

    def has_failed_often() -> bool:
        loop.wake()
        return work.tried > 5

    wait_for(has_failed_often)
    loop.request_stop()
    assert loop.join(PATIENCE_SECONDS)
    assert max(pauses) == patience.LONGEST_SECONDS


@dataclasses.dataclass
class Training:
    """The registry with the trained run, on a store and a database that can be switched off."""

    registry: Registry
    store: SwitchedStore
    database: SwitchedDatabase

    def working(self) -> AbstractContextManager[JobLoop]:
        """A loop of train jobs at work, whose trainings last a few seconds."""
        work = self.registry.train_jobs(command=self.registry.trainers.sleepy)
        return self.registry.working(work)

    def begin(self) -> int:
        """Train a run until a checkpoint of it is stored; return its id."""
        run_id = self.registry.new_run()
        wait_for(lambda: self.registry.rows(Checkpoint, run_id=run_id))
        return run_id

    def begin_to_wait(self) -> int:
        """Train a run until its files wait for the storage; return its id."""
        run_id = self.begin()
        self.store.leave()
        wait_for(lambda: self.registry.row(Run, run_id).waits_for)
        return run_id


@pytest.fixture
def training(trained: TrainedRegistry) -> Training:
    registry = trained.registry
    store, database = SwitchedStore(registry.store), SwitchedDatabase(registry.database)
    behind = dataclasses.replace(
        registry,
        settings=registry.settings.model_copy(update={"lease_seconds": 1.0}),
        store=cast("BlobStore", store),
        database=database,
    )
    return Training(behind, store, database)


@pytest.fixture(scope="module")
def undisturbed(trained: TrainedRegistry) -> int:
    """The id of a run of the same trainers without any outage."""
    registry = trained.registry
    run_id = registry.new_run()
    with registry.working(registry.train_jobs()):
        registry.until_final(Run, run_id)
    return run_id


def starts_of(registry: Registry, run_id: int) -> int:
    """The number of times that a worker claimed this run."""
    return len(registry.rows(Event, subject="run", subject_id=run_id, kind="running"))


@pytest.mark.parametrize("error", [None, StorageFullError("Full.")], ids=["away", "full"])
def test_a_training_goes_on_while_the_storage_cannot_be_used(
    trained: TrainedRegistry, training: Training, undisturbed: int, error: Exception | None
) -> None:
    registry = trained.registry

    def at_its_last_step() -> bool:
        run = registry.row(Run, run_id)
        return run.step == CONFIG["steps"] and run.waits_for is not None

    with training.working():
        run_id = training.begin()
        training.store.leave(error)
        wait_for(at_its_last_step)
        assert registry.row(Run, run_id).status == "running"
        training.store.come_back()
        run = registry.until_final(Run, run_id)
    assert (run.status, run.attempt, run.waits_for) == ("succeeded", 1, None)
    assert starts_of(registry, run_id) == 1
    assert weights_of(registry, run_id) == weights_of(registry, undisturbed)
    assert registry.rows(Checkpoint, run_id=run_id)[-1].step == CONFIG["steps"]
    steps = [sample.step for sample in registry.rows(Sample, run_id=run_id)]
    assert steps == [*range(0, CONFIG["steps"] + 1, CONFIG["checkpoint_every"])]


def test_a_training_goes_on_while_the_database_is_away(
    trained: TrainedRegistry, training: Training, undisturbed: int
) -> None:
    registry = trained.registry
    with training.working():
        run_id = training.begin()
        training.database.is_away.set()
        time.sleep(2 * training.registry.settings.lease_seconds)
        training.database.is_away.clear()
        run = registry.until_final(Run, run_id)
    assert (run.status, run.attempt) == ("succeeded", 1)
    assert starts_of(registry, run_id) == 1
    assert weights_of(registry, run_id) == weights_of(registry, undisturbed)
    with registry.database.read() as session:
        assert run_metrics(session, run_id) == run_metrics(session, undisturbed)


def test_a_training_is_canceled_while_its_files_wait_for_the_storage(
    trained: TrainedRegistry, training: Training
) -> None:
    registry = trained.registry
    with training.working():
        run_id = training.begin_to_wait()
        registry.cancel(Run, run_id)
        run = registry.until_final(Run, run_id)
    assert (run.status, run.waits_for) == ("canceled", None)


def test_a_worker_that_stops_during_an_outage_gives_its_training_back(
    trained: TrainedRegistry, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "STOP_SECONDS", 0.3)
    registry = trained.registry
    with training.working():
        run_id = training.begin_to_wait()
    run = registry.row(Run, run_id)
    assert (run.status, run.attempt) == ("queued", 0)
    registry.cancel(Run, run_id)
