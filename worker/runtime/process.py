"""The job loops of this process: started once, woken by Celery tasks, stopped at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.registry.blobs.guard import make_guard
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.states import Queue
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.tables import all as tables  # noqa: F401 - registers every table before the first query
from app.registry.tables.jobs import IO_THREADS
from app.registry.temporary import remove_abandoned
from app.registry.wakeups import WakeUps
from worker.runtime.forking import fork_command
from worker.runtime.job_loop import JobLoop, Work
from worker.runtime.render_jobs import RenderJobs
from worker.runtime.time_limits.limited_jobs import COMMAND as IO_COMMAND
from worker.runtime.time_limits.limited_jobs import LimitedIoJobs
from worker.runtime.train_jobs import TrainJobs
from worker.runtime.trainer_process import COMMAND as TRAINER_COMMAND
from worker.runtime.upkeep.store_recorder import StoreRecorder

STOP_SECONDS = 60.0
IO_STOP_SECONDS = 20.0  # its jobs are short, go back to the queue, or hang

log = logging.getLogger(__name__)

_loops: dict[str, JobLoop] = {}
_wakeups: WakeUps | None = None
_database: Database | None = None
_recorder: StoreRecorder | None = None
_libraries: str | None = None


def fork_children(libraries: str) -> None:
    """Start trainers and io jobs through the fork server at this socket; call before `start`."""
    global _libraries
    _libraries = libraries


def start(settings: Settings, queues: Sequence[str]) -> None:
    """Start a job loop for each queue that has none yet."""
    global _database, _recorder, _wakeups
    store = open_store(settings.storage_url, settings.data_dir)
    if _database is None:
        _wakeups = WakeUps(settings.broker_url)
        engine = make_engine(settings.sqlalchemy_url)
        _database = Database(
            engine, _wakeups.send, check_rows=make_guard(store), limits=settings.limits
        )
    remove_abandoned(settings.scratch)
    if _recorder is None:
        _recorder = StoreRecorder(_database, store)
        _recorder.open()
    for queue in queues:
        if queue not in _loops:
            _loops[queue] = JobLoop(
                _database,
                _jobs_of(queue, settings, _database, store),
                lease_seconds=settings.lease_seconds,
                threads=IO_THREADS if queue == Queue.IO else 1,
                check_storage=store.check,
                accounts=settings.accounts,
                wants_gpu=settings.device == "auto" and queue != Queue.IO,
            )
            _loops[queue].start()


def serve_wakeup(queue: str) -> None:
    """Let the loop of this queue check for work; return when a job is done or none is waiting."""
    loop = _loops.get(queue)
    if loop is None:
        log.warning("Ignored a wake-up for queue %s, which this worker does not serve.", queue)
    else:
        loop.serve_wakeup()


def request_stop() -> None:
    """Make every loop return its jobs to the queue; does not wait."""
    for loop in _loops.values():
        loop.request_stop()


def stop() -> None:
    """Stop every loop and wait for it."""
    global _database, _recorder, _wakeups
    request_stop()
    if _recorder is not None:
        _recorder.close()
    for queue, loop in _loops.items():
        limit = IO_STOP_SECONDS if queue == Queue.IO else STOP_SECONDS
        if not loop.join(limit):
            log.error("A job of queue %s did not end in %.0f s; it is left behind.", queue, limit)
    _loops.clear()
    if _wakeups is not None:
        _wakeups.close()
    if _database is not None:
        _database.dispose()
    _wakeups = _database = _recorder = None


def _jobs_of(queue: str, settings: Settings, database: Database, store: BlobStore) -> Work:
    forks = _libraries is not None
    if queue == Queue.TRAIN:
        command = _child_command("trainer", TRAINER_COMMAND)
        return TrainJobs(settings, database, store, command=command, forks=forks)
    if queue == Queue.RENDER:
        return RenderJobs(settings, database, store)
    if queue == Queue.IO:
        command = _child_command("io-job", IO_COMMAND)
        wake = _wakeups.send if _wakeups is not None else lambda queue: None
        return LimitedIoJobs(settings, database, store, wake=wake, command=command, forks=forks)
    raise ValueError(f"There is no queue “{queue}”; choose train, render or io.")


def _child_command(name: str, command: Sequence[str]) -> Sequence[str]:
    return fork_command(_libraries, name, command) if _libraries is not None else command
