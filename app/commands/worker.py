"""`brushwork worker --queue Q`: one Celery worker with the settings its queue needs."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from app.config import Settings

# train only watches a trainer process: threads answer pings and may have children. render keeps a
# warm pipeline in one pool process and can be ended by force. io waits for files and networks.
POOLS: Mapping[str, tuple[str, ...]] = {
    "train": ("-P", "threads", "-c", "1"),
    "render": ("-P", "prefork", "-c", "1"),
    "io": ("-P", "threads", "-c", "2"),
}
MAX_THREADS = 16  # more do not help one picture or one small batch
CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def run(arguments: Namespace, settings: Settings) -> int:
    """Work until SIGTERM; a running training is handed back with its checkpoint then."""
    set_environment(os.environ, arguments.queue, settings)
    # Only now: Celery's app reads the environment when it is imported.
    from worker.celery_app import celery

    celery.worker_main(celery_arguments(arguments.queue, settings))
    return 0


def celery_arguments(queue: str, settings: Settings) -> list[str]:
    """The command line of the Celery worker for `queue`."""
    quiet = ("--without-gossip", "--without-mingle")  # workers need not know of each other
    return [
        "worker",
        *POOLS[queue],
        *("-Q", queue, "-n", f"{queue}-{os.getpid()}@%h", "-l", settings.log_level),
        *quiet,
    ]


def set_environment(environment: MutableMapping[str, str], queue: str, settings: Settings) -> None:
    """Tell this process and its children the settings and the number of CPU threads.

    What somebody set themselves stays as it is.
    """
    environment["BRUSHWORK_DATA_DIR"] = str(settings.data_dir)
    if queue == "io":
        return
    threads = str(settings.threads or min(usable_cores(), MAX_THREADS))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, threads)
    # A training and a preview share the cores; waiting threads that spin would slow the other.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cores(cgroup: Path = CGROUP_CPU) -> int:
    """CPU cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = cgroup.read_text().split()
        return max(1, min(cores or 1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores or 1
