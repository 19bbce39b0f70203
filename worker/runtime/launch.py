"""Runs a Celery worker for the given queues, with a suitable pool."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from app.registry.jobs.models import IO_THREADS
from app.registry.jobs.queues import Queue
from worker.core.words import values
from worker.runtime.device import child_environment, threads


def celery_arguments(queues: Sequence[str], *, log_level: str = "INFO") -> list[str]:
    """The `celery` arguments for a worker of these queues.

    Renders run in a spawned child process that holds the warm pipeline. Without prefork (Windows),
    or together with other queues, they run in a thread.
    """
    unknown = [queue for queue in queues if queue not in values(Queue)]
    if unknown or not queues:
        raise ValueError(f"Choose queues from {', '.join(Queue)}; not {', '.join(unknown)}.")
    in_child = list(queues) == [Queue.RENDER] and sys.platform != "win32"
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


def run(queues: Sequence[str], *, log_level: str = "INFO", thread_setting: int = 0) -> None:
    """Run a worker until SIGTERM, which returns its jobs to the queue; reads the environment."""
    os.environ.update(child_environment(threads(thread_setting)))  # torch reads it on import
    from worker.runtime.celery_app import celery

    celery.worker_main(celery_arguments(queues, log_level=log_level))


if __name__ == "__main__":
    run(sys.argv[1:])
