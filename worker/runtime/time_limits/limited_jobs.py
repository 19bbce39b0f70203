"""The io jobs of a worker, in processes that are ended when a job takes too long.

The alternative, a watch that ends the whole worker, was not chosen: code that holds the interpreter
lock would stop the watch too, and downloads of the same worker would begin again. A process also
gives its memory back: an io worker itself loads torch for publications only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from app.registry.base_models.fused_files import delete_unfinished
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.job_kinds.job_types import JOB_TYPES, TimeLimit
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import LostLease
from app.registry.storage.store import BlobStore, StorageUnavailable
from app.registry.tables.jobs import IoJob
from app.registry.temporary import remove_abandoned, temporary_folder
from worker.core.wording import duration
from worker.runtime.device import child_environment, threads
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_progress import IoWork, JobCanceled, JobProcessFailed, WorkerStopping
from worker.runtime.lease import Lease
from worker.runtime.line_process import Ended, LineProcess
from worker.runtime.outages.job_clock import JobClock
from worker.runtime.outages.patience import JobWaits, reason_to_wait
from worker.runtime.time_limits.messages import (
    Done,
    Message,
    Order,
    Size,
    Stop,
    Wake,
    Word,
    decode,
    encode,
)

COMMAND = (sys.executable, "-m", "worker.runtime.time_limits.child")
KEPT_SECONDS = 60.0
NOT_SENT = {"password", "hub_token"}  # settings that no job in a process needs
LOOK_SECONDS = 0.2
GRACE_SECONDS = 8.0  # for a job that is canceled or whose worker stops, to end by itself
STORE_SECONDS = 10.0  # for a call of the storage when a job is ended
SMALL_PROCESS = (JobKind.INSPECT_BASE, JobKind.CHECK_CAPTION_MODEL)  # they have one of their own
IN_PROCESS = frozenset(
    kind for kind, job_type in JOB_TYPES.items() if job_type.limit and kind not in SMALL_PROCESS
)
CODE = "time_limit"
TOOK_TOO_LONG = (
    "This did nothing for {limit}, so it was ended, and {kept}. Check that the "
    "disks and network drives of the storage and of the base models answer, then try again. On a "
    "slow or busy machine, raise BRUSHWORK_JOB_TIME_FACTOR."
)
NOTHING_KEPT = "nothing of it was stored"
PARTS_KEPT = "what was done until then is kept"
NO_ANSWER = "It did not answer for {limit}."

log = logging.getLogger(__name__)


class JobProcess(LineProcess[Message]):
    """A running `python -m worker.runtime.time_limits.child`.

    It belongs to the process group of the worker: whoever kills the group kills it too.
    """

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        environment = os.environ | child_environment(threads(settings.threads))
        super().__init__(command, environment, decode)
        values = settings.model_dump(mode="json", exclude=NOT_SENT, exclude_none=True)
        if settings.openai_key:  # JSON of a secret is asterisks
            values["openai_key"] = settings.openai_key.get_secret_value()
        self.write(json.dumps(values).encode() + b"\n")

    def send(self, message: Message) -> None:
        """Send a message."""
        self.write(encode(message))


class ProcessPool:
    """Gives processes for jobs, and keeps one that has ended its job for a while.

    A process that imports its libraries itself takes seconds to start. `forks`: it takes
    milliseconds, and none is kept.
    """

    def __init__(self, settings: Settings, command: Sequence[str], *, forks: bool) -> None:
        self._settings = settings
        self._command = command
        self._kept_seconds = 0.0 if forks else KEPT_SECONDS
        self._kept: JobProcess | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def take(self) -> JobProcess:
        """A process without a job; the caller gives it back or kills it."""
        process = self._take_kept()
        if process is not None and process.is_alive:
            return process
        if process is not None:
            process.kill()
        return JobProcess(self._settings, self._command)

    def give_back(self, process: JobProcess) -> None:
        """Keep this process for the next job, or end it."""
        with self._lock:
            keeps = self._kept is None and self._kept_seconds > 0
            if keeps:
                self._kept = process
                self._timer = threading.Timer(self._kept_seconds, self.close)
                self._timer.daemon = True
                self._timer.start()
        if not keeps:
            process.kill()

    def close(self) -> None:
        """End the process that is kept."""
        process = self._take_kept()
        if process is not None:
            process.kill()

    def _take_kept(self) -> JobProcess | None:
        with self._lock:
            process, self._kept = self._kept, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return process


class TookTooLong(Exception):
    """A job passed its time limit."""


class LimitedIoJobs:
    """Processes the jobs of the `io` queue, within the time limits of their kinds."""

    table = IoJob
    device = IoJobs.device
    machine = IoJobs.machine
    memory_bytes = IoJobs.memory_bytes

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        *,
        wake: Callable[[str], None] = lambda queue: None,
        command: Sequence[str] = COMMAND,
        forks: bool = False,
    ) -> None:
        """`wake`: wakes the workers of a queue. `command`: starts a process for jobs."""
        self._settings = settings
        self._database = database
        self._store = store
        self._wake = wake
        self._jobs = IoJobs(settings, database, store)
        self._processes = ProcessPool(settings, command, forks=forks)

    def prepare(self) -> None:
        """Start the upkeep clock."""
        self._jobs.prepare()

    def close(self) -> None:
        """Stop the upkeep clock and the process that is kept for the next job."""
        self._jobs.close()
        self._processes.close()

    def run(self, job: IoJob, lease: Lease, stopping: threading.Event) -> None:
        """Carry out a job, in a process of its own where its kind has a time limit.

        Raises JobWaits, JobProcessFailed and LostLease.
        """
        limit = JOB_TYPES[job.kind].limit if job.kind in IN_PROCESS else None
        if limit is None:
            self._jobs.run(job, lease, stopping)
            return
        with temporary_folder(self._settings.scratch, "io-") as scratch:
            work = IoWork(
                self._settings, self._database, self._store, job, lease, scratch, stopping
            )
            try:
                self._run_in_process(work, limit)
            except JobCanceled:
                self._end(work, JobStatus.CANCELED, result={})
            except WorkerStopping:
                work.give_back()
            except TookTooLong as error:
                log.error("Job %s (%s) was ended: %s", job.key, job.kind, error)
                self._require_storage()
                self._end(work, JobStatus.FAILED, error=str(error), error_code=CODE)

    def _run_in_process(self, work: IoWork, limit: TimeLimit) -> None:
        process = self._processes.take()
        keeps_parts = JOB_TYPES[work.job.kind].keeps_parts
        watched = _WatchedJob(
            process,
            self._limit_of(limit),
            self._wake,
            kept=PARTS_KEPT if keeps_parts else NOTHING_KEPT,
        )
        try:
            process.send(Order(work.job.key, work.lease.claim.token, str(work.scratch)))
            done = watched.until_done(work.watch())
        except BaseException:
            process.kill()
            self._try_storage(lambda: remove_abandoned(self._store.temporary_folder()))
            raise
        self._processes.give_back(process)
        if done.lost:
            raise LostLease(done.lost)
        if done.waits:
            raise JobWaits(done.waits)
        if done.error:
            failed = JobProcessFailed(done.error)
            failed.add_note(done.trace)
            raise failed

    def _limit_of(self, limit: TimeLimit) -> Callable[[int], float]:
        factor = self._settings.job_time_factor
        return lambda size_bytes: factor * limit.of(size_bytes)

    def _end(self, work: IoWork, status: JobStatus, **values: Any) -> None:
        """Write the end of a job whose process was killed."""
        if work.job.kind == JobKind.FUSE_ADAPTER:
            delete_unfinished(work.database, work.lease.claim, work.settings.data_dir, work.job)
        work.finish(status, **values)

    def _require_storage(self) -> None:
        """Raise JobWaits if the storage fails or hangs: then no job is to blame for its time."""
        error = self._try_storage(self._store.check)
        reason = reason_to_wait(error) if error is not None else None
        if reason is not None:
            raise JobWaits(reason)

    @staticmethod
    def _try_storage(act: Callable[[], object]) -> Exception | None:
        """The error of this call, or that it did not return in time: a folder may never answer."""
        answer: list[Exception | None] = []

        def call() -> None:
            try:
                act()
            except Exception as error:
                answer.append(error)
            else:
                answer.append(None)

        thread = threading.Thread(target=call, name="storage-call", daemon=True)
        thread.start()
        thread.join(STORE_SECONDS)
        detail = NO_ANSWER.format(limit=duration(STORE_SECONDS))
        return answer[0] if answer else StorageUnavailable(detail)


class _WatchedJob:
    """A job in a process, with its clock."""

    def __init__(
        self,
        process: JobProcess,
        limit: Callable[[int], float],
        wake: Callable[[str], None],
        *,
        kept: str = NOTHING_KEPT,
    ) -> None:
        """`kept`: what is left of a job that is ended, as part of a sentence."""
        self._process = process
        self._kept = kept
        self._limit = limit
        self._wake = wake
        self._clock = JobClock(limit(0))
        self._clock.begin_call()  # until its process has started
        self._interruption: JobCanceled | WorkerStopping | None = None

    def until_done(self, check: Callable[[], None]) -> Done:
        """The last message of the job.

        `check` raises when the job should stop. One that does not in time makes this raise
        JobCanceled or WorkerStopping; one that takes too long, TookTooLong.
        """
        while True:
            message = self._process.receive(LOOK_SECONDS)
            if isinstance(message, Done):
                return message
            if isinstance(message, Ended):
                raise JobProcessFailed(f"the process of this job ended with code {message.code}")
            if isinstance(message, Wake):
                self._wake(message.queue)
            elif self._interruption is None:
                self._note(message)
            self._interrupt_if_asked(check)
            if self._clock.is_over():
                limit = duration(self._clock.limit)
                sentence = TOOK_TOO_LONG.format(limit=limit, kept=self._kept)
                raise self._interruption or TookTooLong(sentence)

    def _note(self, message: object) -> None:
        if message is Word.PART:
            self._clock.restart()
        elif message is Word.CALL:
            self._clock.begin_call()
        elif message is Word.BACK:
            self._clock.end_call()
        elif isinstance(message, Size):
            self._clock.limit = self._limit(message.size_bytes)

    def _interrupt_if_asked(self, check: Callable[[], None]) -> None:
        """Give a job that should stop a short time to do so."""
        if self._interruption is not None:
            return
        try:
            check()
        except (JobCanceled, WorkerStopping) as interruption:
            if isinstance(interruption, WorkerStopping):
                self._process.send(Stop())
            self._interruption = interruption
            self._clock = JobClock(GRACE_SECONDS)
