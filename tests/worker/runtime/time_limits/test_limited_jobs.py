"""Io jobs that hang are ended, whatever they hang in; nothing else of their worker suffers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import save_file

from app.registry.adapters import service as adapters
from app.registry.adapters import tools
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.base_models.fused_files import fused_path
from app.registry.job_kinds.job_types import JOB_TYPES, TRAIN_KINDS, TimeLimit
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.jobs import IoJob
from app.registry.temporary import PREFIXES
from tests.fake_workers import weighted
from tests.worker.runtime.job_loops import Registry, running, wait_for
from tests.worker.runtime.outages import SwitchedStore
from tests.worker.runtime.test_import_jobs import lora
from tests.worker.runtime.test_job_clock import Time
from tests.worker.runtime.test_tool_jobs import add
from worker.core import starter
from worker.runtime.forking import fork_command
from worker.runtime.job_loop import JobLoop
from worker.runtime.job_progress import JobCanceled, WorkerStopping
from worker.runtime.lease import Lease
from worker.runtime.line_process import Ended
from worker.runtime.outages.job_clock import JobClock
from worker.runtime.outages.patience import JobWaits
from worker.runtime.time_limits import limited_jobs
from worker.runtime.time_limits.limited_jobs import (
    COMMAND,
    IN_PROCESS,
    JobProcessFailed,
    LimitedIoJobs,
    ProcessPool,
    TookTooLong,
)
from worker.runtime.time_limits.messages import Done, Order, Size, Stop, Wake, Word, decode, encode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks its processes")
HANGING = (sys.executable, "-m", "tests.worker.runtime.time_limits.hanging_child")
SHORT = 0.003  # of 300 s


@pytest.fixture
def work(registry: Registry) -> LimitedIoJobs:
    return limited(registry, HANGING)


def limited(registry: Registry, command: tuple[str, ...]) -> LimitedIoJobs:
    """The work of an io worker whose processes are forked by the server of these tests."""
    return LimitedIoJobs(
        registry.settings,
        registry.database,
        registry.store,
        command=fork_command(registry.trainers.socket, "io-job", command),
        forks=True,
    )


@pytest.fixture
def loop(registry: Registry, work: LimitedIoJobs) -> Iterator[JobLoop]:
    """A loop of io jobs with two threads."""
    opened = JobLoop(
        registry.database,
        work,
        lease_seconds=registry.settings.lease_seconds,
        threads=2,
        check_storage=lambda: work._store.check(),
    )
    opened.start()
    registry.loops.append(opened)
    yield opened
    registry.loops.remove(opened)
    opened.request_stop()
    assert opened.join(60)


def shorten(work: LimitedIoJobs, factor: float = SHORT) -> None:
    """Multiply the time limits of this work from now on."""
    work._settings = work._settings.model_copy(update={"job_time_factor": factor})


def order(registry: Registry, word: str, *, attempts: int = 3) -> int:
    """A queued import of a file with this name."""
    blob = registry.store.put_bytes(b"a file")
    with registry.database.write() as session:
        job = adapters.order_import(session, sha256=blob.sha256, filename=word)
        job.max_attempts = attempts
        return job.key


def inspect_starter(registry: Registry) -> int:
    """A queued inspection of a base model."""
    with registry.database.write() as session:
        base = added_models.add_path(session, base_models.BASE_MODELS, str(starter.PATH))
    (job,) = registry.rows(IoJob, kind="inspect_base", subject_id=base.key)
    key: int = job.key
    return key


def leftovers(registry: Registry) -> list[Path]:
    """The leftovers of jobs in folders for temporary files."""
    folders = (registry.settings.scratch, registry.store.temporary_folder())
    return [
        path for folder in folders for path in folder.glob("*") if path.name.startswith(PREFIXES)
    ]


def job_processes() -> list[psutil.Process]:
    """The processes of io jobs that this test has started."""
    return running("io-job")


def test_every_short_kind_has_a_limit_that_is_generous() -> None:
    short = {kind for kind, job_type in JOB_TYPES.items() if not job_type.is_long}
    limits = {kind: job_type.limit for kind, job_type in JOB_TYPES.items() if job_type.limit}
    assert short - {*TRAIN_KINDS} <= set(limits)
    assert set(JOB_TYPES) - set(limits) == {
        *TRAIN_KINDS,
        JobKind.DOWNLOAD_BASE,
        JobKind.FETCH_HUB_ADAPTER,
        JobKind.PUBLISH_ADAPTER,
        JobKind.SWEEP,
        JobKind.DOWNLOAD_CAPTION_MODEL,
    }
    assert set(limits) - IN_PROCESS == {JobKind.INSPECT_BASE, JobKind.CHECK_CAPTION_MODEL}
    assert {kind: limit.of(0) for kind, limit in limits.items()} == {
        JobKind.INSPECT_BASE: 60,
        JobKind.EXPORT_ADAPTER: 300,
        JobKind.KEEP_IN_FOLDER: 600,
        JobKind.IMPORT_ADAPTER: 300,
        JobKind.MERGE_ADAPTERS: 300,
        JobKind.RESIZE_ADAPTER: 300,
        JobKind.SCALE_ADAPTER: 300,
        JobKind.FUSE_ADAPTER: 600,
        JobKind.EXTRACT_ADAPTER: 600,
        JobKind.MEASURE_OVERLAP: 300,
        JobKind.EVALUATE_RUN: 600,
        JobKind.EVALUATE_WEIGHTS: 600,
        JobKind.ADVANCE_SWEEP: 600,
        JobKind.MAKE_THUMBNAILS: 300,
        JobKind.MEASURE_LOOKS: 300,
        JobKind.MEASURE_IMAGE: 300,
        JobKind.CHECK_FILES: 300,
        JobKind.DELETE_DRAFTS: 300,
        JobKind.CAPTION_IMAGES: 600,
        JobKind.PREVIEW_CAPTION: 600,
        JobKind.CHECK_CAPTION_MODEL: 60,
    }
    grown = {kind: limit.of(10**9) - limit.of(0) for kind, limit in limits.items()}
    assert {kind: seconds for kind, seconds in grown.items() if seconds} == {
        JobKind.EXPORT_ADAPTER: 1_000,
        JobKind.IMPORT_ADAPTER: 1_000,
        JobKind.MERGE_ADAPTERS: 1_000,
        JobKind.RESIZE_ADAPTER: 1_000,
        JobKind.SCALE_ADAPTER: 1_000,
        JobKind.FUSE_ADAPTER: 500,
        JobKind.EXTRACT_ADAPTER: 500,
        JobKind.MEASURE_OVERLAP: 1_000,
    }


@pytest.mark.parametrize("word", ["match", "read"])
def test_a_job_that_hangs_is_ended_and_the_others_of_its_worker_are_not(
    word: str, registry: Registry, work: LimitedIoJobs, loop: JobLoop, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    shorten(work)
    hung = order(registry, f"{word} {tmp_path / 'fifo'}")
    other = registry.until_final(IoJob, inspect_starter(registry))
    assert (other.status, other.attempt) == ("succeeded", 1)
    ended = registry.until_final(IoJob, hung)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "time_limit", 1)
    assert "did nothing for 0.9 s, so it was ended" in ended.error
    assert "BRUSHWORK_JOB_TIME_FACTOR" in ended.error
    wait_for(lambda: not leftovers(registry))
    assert job_processes() == []
    assert registry.rows(AdapterVersion) == []
    shorten(work, 1.0)
    following = registry.until_final(IoJob, order(registry, "sleep 0"))
    assert (following.status, following.attempt) == ("succeeded", 1)


def test_an_import_ends_whose_base_model_never_answers(registry: Registry, tmp_path: Path) -> None:
    """The real process of imports, which reads the headers of all base models."""
    silent = tmp_path / "silent"
    silent.mkdir()
    os.mkfifo(silent / "model_index.json")
    with registry.database.write() as session:
        ready = ModelStatus.READY
        session.add(BaseModel(slug="away", name="Away", source=str(silent), status=ready))
    save_file(lora((96, 96)), tmp_path / "style")
    blob = registry.store.put_file(tmp_path / "style")
    with registry.database.write() as session:
        job = adapters.order_import(session, sha256=blob.sha256, filename="style.safetensors")
    work = limited(registry, COMMAND)
    shorten(work, 0.01)
    with registry.working(work):
        ended = registry.until_final(IoJob, job.key)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "time_limit", 1)
    assert registry.rows(Adapter) == []
    wait_for(lambda: not leftovers(registry))
    assert job_processes() == []


def test_a_job_that_hangs_is_canceled_or_goes_back_when_its_worker_stops(
    registry: Registry,
    work: LimitedIoJobs,
    loop: JobLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited_jobs, "GRACE_SECONDS", 0.5)
    canceled, waiting = order(registry, "match"), order(registry, "match")
    wait_for(lambda: len(leftovers(registry)) == 4)
    registry.cancel(IoJob, canceled)
    assert registry.until_final(IoJob, canceled).status == "canceled"
    loop.request_stop()
    assert loop.join(60)
    row = registry.row(IoJob, waiting)
    assert (row.status, row.attempt) == ("queued", 0)
    wait_for(lambda: not leftovers(registry))
    assert job_processes() == []


def test_a_storage_that_is_away_is_not_the_fault_of_a_job(
    registry: Registry, work: LimitedIoJobs, loop: JobLoop
) -> None:
    store = SwitchedStore(registry.store)
    work._store = store  # type: ignore[assignment]
    store.leave()
    shorten(work)
    hung = order(registry, "match")
    waiting = wait_for(lambda: registry.row(IoJob, hung).waits_for)
    assert "Waiting for the storage" in waiting
    row = registry.row(IoJob, hung)
    assert (row.status, row.attempt) == ("queued", 0)
    assert job_processes() == []
    store.come_back()
    assert registry.until_final(IoJob, hung).error_code == "time_limit"
    wait_for(lambda: not leftovers(registry))


def test_a_storage_that_hangs_is_away(
    registry: Registry, work: LimitedIoJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_jobs, "STORE_SECONDS", 0.1)
    answers = threading.Event()
    monkeypatch.setattr(registry.store, "check", answers.wait)
    with pytest.raises(JobWaits, match=r"did not answer for 0\.1 s"):
        work._require_storage()
    answers.set()
    monkeypatch.setattr(limited_jobs, "STORE_SECONDS", 60.0)
    work._require_storage()


def test_how_a_job_ends_in_its_process_reaches_the_job_loop(
    registry: Registry, work: LimitedIoJobs, loop: JobLoop
) -> None:
    waiting = order(registry, "outage")
    sentence = wait_for(lambda: registry.row(IoJob, waiting).waits_for)
    assert "The bucket sleeps." in sentence
    registry.cancel(IoJob, waiting)
    failed = registry.until_final(IoJob, order(registry, "bark", attempts=1))
    assert (failed.status, failed.error_code) == ("failed", "worker_error")
    assert failed.error == "Internal error in the worker: ValueError: no such word: bark"
    assert "in misbehave" in failed.error_trace
    died = registry.until_final(IoJob, order(registry, "die", attempts=2))
    assert (died.status, died.attempt) == ("failed", 2)
    assert "ended with code 137" in died.error
    wait_for(lambda: not leftovers(registry))


def test_a_fused_base_of_a_job_that_was_ended_is_deleted(
    registry: Registry, work: LimitedIoJobs, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    with registry.database.write() as session:
        tools.order_fuse(session, "Inked", [weighted(ink.key)])
        job, claim = jobs.claim_next(session, IoJob, lease_seconds=60)  # type: ignore[misc]
    lease = Lease(registry.database, IoJob, claim, seconds=60)
    out = fused_path(registry.settings.data_dir, job, claim)
    half = out.with_name(f".{out.name}.abc.part")
    other = out.with_name("inked-77-abcdefgh")
    for folder in (half, other):
        folder.mkdir(parents=True)
    ended = replace(registry.io_work(tmp_path, job), lease=lease)
    work._end(ended, JobStatus.FAILED, error="Too long.", error_code="time_limit")
    assert list(out.parent.iterdir()) == [other]
    assert registry.row(IoJob, job.key).status == "failed"


def test_a_process_is_kept_for_the_next_job_where_its_start_takes_seconds(
    registry: Registry,
) -> None:
    command = fork_command(registry.trainers.socket, "io-job", HANGING)
    pool = ProcessPool(registry.settings, command, forks=False)
    first, second = pool.take(), pool.take()
    pool.give_back(first)
    pool.give_back(second)
    assert (first.is_alive, second.is_alive) == (True, False)
    assert pool.take() is first
    pool.give_back(first)
    pool.close()
    assert (first.is_alive, job_processes()) == (False, [])


class ScriptedProcess:
    """A process that sends messages, each a given time after the last one."""

    def __init__(self, time: Time, *messages: tuple[float, Any]) -> None:
        self.sent: list[Any] = []
        self._time = time
        self._messages = list(messages)

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def receive(self, seconds: float) -> Any:
        if not self._messages:
            self._time.seconds += seconds
            return None
        wait, message = self._messages[0]
        if wait > seconds:
            self._messages[0] = (wait - seconds, message)
            self._time.seconds += seconds
            return None
        self._time.seconds += wait
        return self._messages.pop(0)[1]


def watch(
    monkeypatch: pytest.MonkeyPatch, *messages: tuple[float, Any], at: float = 1e9, why: Any = None
) -> tuple[ScriptedProcess, list[str], Callable[[], Done]]:
    """A job with a limit of 10 s and 1 s for a byte; it should stop `at` some time."""
    time = Time()
    began = time.seconds
    monkeypatch.setattr(limited_jobs, "JobClock", partial(JobClock, now=time))
    woken: list[str] = []
    process = ScriptedProcess(time, (100, Word.BACK), *messages)  # it takes a while to start
    limit = TimeLimit(10, 1).of
    watched = limited_jobs._WatchedJob(process, limit, woken.append)  # type: ignore[arg-type]

    def check() -> None:
        if time.seconds - began >= 100 + at:
            raise why

    return process, woken, lambda: watched.until_done(check)


@pytest.mark.parametrize(
    "messages",
    [
        [(9, Done())],
        [(9, Word.PART), (9, Word.PART), (9, Done())],
        [(1, Size(30)), (38, Done())],
        [(5, Word.CALL), (3_000, Word.BACK), (4, Done())],
    ],
)
def test_a_job_within_its_limit_is_left_alone(
    messages: list[tuple[float, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, until_done = watch(monkeypatch, *messages)
    assert until_done() == Done()


@pytest.mark.parametrize(
    "messages",
    [
        [(11, Done())],
        [(9, Word.PART), (11, Done())],
        [(1, Size(30)), (41, Done())],
        [(5, Word.CALL), (3_000, Word.BACK), (6, Done())],
        [(5, Word.CALL), (3_700, Done())],
    ],
)
def test_a_job_beyond_its_limit_is_ended(
    messages: list[tuple[float, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, until_done = watch(monkeypatch, *messages)
    with pytest.raises(TookTooLong, match="did nothing for"):
        until_done()


@pytest.mark.parametrize("why", [JobCanceled(), WorkerStopping()])
def test_a_job_that_should_stop_has_a_short_time_for_it(
    why: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _, until_done = watch(monkeypatch, (8, Done()), at=2, why=why)
    assert until_done() == Done()
    assert process.sent == ([Stop()] if isinstance(why, WorkerStopping) else [])
    _, _, until_done = watch(monkeypatch, (9, Word.PART), (9, Word.PART), at=2, why=why)
    with pytest.raises(type(why)):
        until_done()


def test_a_process_that_ends_and_one_that_queues_jobs_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, woken, until_done = watch(monkeypatch, (1, Wake("io")), (1, Ended(-11)))
    with pytest.raises(JobProcessFailed, match="ended with code -11"):
        until_done()
    assert woken == ["io"]


@pytest.mark.parametrize(
    "message", [*Word, Order(3, "token", "/tmp/io"), Stop(), Size(7), Wake("io"), Done(lost="x")]
)
def test_messages_come_through(message: Any) -> None:
    assert decode(encode(message).rstrip()) == message
