"""Runs a Celery worker for the given queues, with a suitable pool."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from app.registry.job_kinds.states import Queue
from app.registry.tables.jobs import IO_THREADS
from worker.core.device import set_threads
from worker.core.words import values
from worker.runtime.device import child_environment, threads


def celery_arguments(
    queues: Sequence[str], *, log_level: str = "INFO", is_restarted: bool = False
) -> list[str]:
    """The `celery` arguments for a worker of these queues.

    Renders run in a spawned child process that holds the warm pipeline, and that is started again
    when it ends. They run in a thread if the worker itself `is_restarted`, without prefork
    (Windows), or together with other queues.
    """
    unknown = [queue for queue in queues if queue not in values(Queue)]
    if unknown or not queues:
        raise ValueError(f"Choose queues from {', '.join(Queue)}; not {', '.join(unknown)}.")
    is_alone = list(queues) == [Queue.RENDER] and not is_restarted
    in_child = is_alone and sys.platform != "win32"
    concurrency = 1 if in_child else sum(IO_THREADS if q == Queue.IO else 1 for q in queues)
    return [
        "worker",
        *("-Q", ",".join(queues)),
        *("-P", "prefork" if in_child else "threads"),
        *("-c", str(concurrency)),
        *("-n", f"{'-'.join(queues)}-{os.getpid()}@%h"),
        *("-l", log_level),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def run(
    queues: Sequence[str],
    *,
    log_level: str = "INFO",
    thread_setting: int = 0,
    libraries: str | None = None,
) -> None:
    """Run a worker until SIGTERM, which returns its jobs to the queue; reads the environment.

    `libraries` is the socket of a fork server for trainers and io jobs; `serve`, which restarts
    workers, has one on Linux.
    """
    count = threads(thread_setting)
    os.environ.update(child_environment(count))  # torch reads it on import
    set_threads(count)
    from worker.runtime import process
    from worker.runtime.celery_app import celery

    if libraries:
        process.fork_children(libraries)
    arguments = celery_arguments(queues, log_level=log_level, is_restarted=bool(libraries))
    celery.worker_main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
