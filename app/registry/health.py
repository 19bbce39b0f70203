"""The state of the parts that Brushwork needs, and counts, for probes and metrics."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.db import database_now, make_engine
from app.registry.errors import AppError, NotReady, StorageFullError
from app.registry.job_kinds.states import JobStatus, Queue
from app.registry.jobs.presence import present_workers
from app.registry.migrate import require_current
from app.registry.state import AppState
from app.registry.storage.folder import write_probe
from app.registry.tables.adapters import Adapter
from app.registry.tables.all import JOB_TABLES
from app.registry.tables.datasets import Dataset
from app.registry.wording import aware, size_text

LOW_DISK_BYTES = 500_000_000
PROBE_PATIENCE_SECONDS = 1
UNKNOWN_ERROR = "other"


def check_database(state: AppState) -> None:
    """Raise NotReady or UnusableDatabase unless the tables of this version can be read.

    It has a connection of its own and takes no lock: a busy database, and a pool that is used up,
    can still be read.
    """
    engine = make_engine(state.settings.sqlalchemy_url, patience=PROBE_PATIENCE_SECONDS)
    try:
        require_current(engine)
    except AppError:
        raise
    except Exception as error:
        raise NotReady("The database cannot be reached. Try again in a moment.") from error
    finally:
        engine.dispose()


def check_storage(state: AppState) -> None:
    """Raise StorageUnavailable unless stored files can be read."""
    state.store.check_readable()


def check_broker(state: AppState) -> None:
    """Raise NotReady unless the broker takes messages; without one, workers look by themselves."""
    try:
        state.wakeups.check()
    except Exception as error:
        raise NotReady(
            "The broker does not answer. Jobs still start, some seconds later: workers look for "
            "them every few seconds."
        ) from error


def check_disk(state: AppState) -> None:
    """Raise StorageFullError or NotReady if the data folder has little room or is read-only."""
    folder = state.settings.data_dir
    try:
        write_probe(folder)
    except OSError as error:
        raise NotReady(
            f"The data folder {folder} cannot be written: {error.strerror}. Check its permissions."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        raise StorageFullError(
            f"Only {size_text(free)} are free in {folder}. Delete what you no longer need."
        )


CHECKS: Mapping[str, Callable[[AppState], None]] = {
    "database": check_database,
    "storage": check_storage,
    "broker": check_broker,
    "disk": check_disk,
}
NEEDED = frozenset({"database", "storage"})
"""Without these nothing can be shown; without the others something goes slower or not at all."""


@dataclass(frozen=True)
class Counts:
    """Figures of the registry for Prometheus, by queue where they have one."""

    jobs: Mapping[tuple[str, str], int]  # by queue and status
    failures: Mapping[tuple[str, str], int]  # failed jobs, by queue and error code
    oldest_seconds: Mapping[str, float]  # age of the oldest waiting job, 0 without one
    workers: Mapping[str, int]
    datasets: int
    adapters: int


def read_counts(state: AppState) -> Counts:
    """The figures as they are now."""
    with state.database.read() as session:
        workers = Counter(worker.queue for worker in present_workers(session))
        return Counts(
            jobs=_count_jobs(session),
            failures=_count_failures(session),
            oldest_seconds=_oldest_waiting(session),
            workers={queue: workers[queue] for queue in Queue},
            datasets=_count_kept(session, Dataset),
            adapters=_count_kept(session, Adapter),
        )


def _count_jobs(session: Session) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for table in JOB_TABLES:
        rows = session.exec(select(col(table.status), func.count()).group_by(col(table.status)))
        found |= {(table.queue, status): count for status, count in rows}
    return found


def _count_failures(session: Session) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for table in JOB_TABLES:
        code = func.coalesce(col(table.error_code), UNKNOWN_ERROR)
        failed = select(code, func.count()).where(col(table.status) == JobStatus.FAILED)
        found |= {(table.queue, name): count for name, count in session.exec(failed.group_by(code))}
    return found


def _oldest_waiting(session: Session) -> dict[str, float]:
    now = database_now(session)
    found: dict[str, float] = {}
    for table in JOB_TABLES:
        oldest = select(func.min(col(table.created_at))).where(
            col(table.status) == JobStatus.QUEUED
        )
        created = session.exec(oldest).one()
        waited = (now - aware(created)).total_seconds() if created else 0.0
        found[table.queue] = max(0.0, waited)
    return found


def _count_kept(session: Session, table: type[Dataset] | type[Adapter]) -> int:
    """Number of rows that are not deleted."""
    kept = select(func.count()).select_from(table).where(col(table.deleted_at).is_(None))
    return session.exec(kept).one()
