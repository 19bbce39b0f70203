"""The states of a job and the moves between them; pure, no database."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a run, a render or another job stands."""

    QUEUED = "queued"
    PAUSED = "paused"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_active(self) -> bool:
        """True while something may still happen by itself."""
        return self in (JobStatus.QUEUED, JobStatus.RUNNING)

    @property
    def is_final(self) -> bool:
        """True when no further move exists."""
        return not ALLOWED_MOVES[self]


ALLOWED_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELED, JobStatus.PAUSED}),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED}
    ),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
}


ACTIVE = tuple(status for status in JobStatus if status.is_active)
UNENDED = tuple(status for status in JobStatus if not status.is_final)


def can_move(old: JobStatus, new: JobStatus) -> bool:
    """True when a job may go from `old` to `new`."""
    return new in ALLOWED_MOVES[old]
