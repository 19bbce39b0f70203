"""The job loops of this process: started once, woken by Celery tasks, stopped at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.registry import tables  # noqa: F401 - registers every table before the first query
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.jobs.models import IO_THREADS
from app.registry.jobs.queues import Queue
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.wakeups import WakeUps
from worker.runtime.forking import fork_command
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_loop import JobLoop, Work
from worker.runtime.render_jobs import RenderJobs
from worker.runtime.train_jobs import TrainJobs
from worker.runtime.trainer_process import COMMAND

STOP_SECONDS = 60.0

log = logging.getLogger(__name__)

_loops: dict[str, JobLoop] = {}
_wakeups: WakeUps | None = None
_database: Database | None = None
_trainer_command: Sequence[str] = COMMAND


def fork_trainers(libraries: str) -> None:
    """Start trainers through the fork server at this socket; call before `start`."""
    global _trainer_command
    _trainer_command = fork_command(libraries, "trainer", COMMAND)


def start(settings: Settings, queues: Sequence[str]) -> None:
    """Start a job loop for each queue that has none yet."""
    global _database, _wakeups
    if _database is None:
        _wakeups = WakeUps(settings.broker_url)
        _database = Database(make_engine(settings.sqlalchemy_url), _wakeups.send)
    store = open_store(settings.storage_url, settings.data_dir)
    for queue in queues:
        if queue not in _loops:
            _loops[queue] = JobLoop(
                _database,
                _jobs_of(queue, settings, _database, store),
                lease_seconds=settings.lease_seconds,
                threads=IO_THREADS if queue == Queue.IO else 1,
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
    global _database, _wakeups
    request_stop()
    for loop in _loops.values():
        if not loop.join(STOP_SECONDS):
            log.error("A worker thread did not end in %.0f s.", STOP_SECONDS)
    _loops.clear()
    if _wakeups is not None:
        _wakeups.close()
    if _database is not None:
        _database.dispose()
    _wakeups = _database = None


def _jobs_of(queue: str, settings: Settings, database: Database, store: BlobStore) -> Work:
    if queue == Queue.TRAIN:
        forks = _trainer_command is not COMMAND
        return TrainJobs(settings, database, store, command=_trainer_command, forks=forks)
    if queue == Queue.RENDER:
        return RenderJobs(settings, database, store)
    if queue == Queue.IO:
        return IoJobs(settings, database, store)
    raise ValueError(f"There is no queue “{queue}”; choose train, render or io.")
