"""The queues of jobs, their statuses and the allowed changes between them; no database access."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Status of a run, render or io job."""

    QUEUED = "queued"
    PAUSED = "paused"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_active(self) -> bool:
        """True if the job is queued or running."""
        return self in (JobStatus.QUEUED, JobStatus.RUNNING)

    @property
    def is_final(self) -> bool:
        """True if the status cannot change any more."""
        return not ALLOWED_MOVES[self]


ALLOWED_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELED, JobStatus.PAUSED}),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.CANCELED}),
    JobStatus.RUNNING: frozenset(
        {
            JobStatus.QUEUED,
            JobStatus.PAUSED,
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELED,
        }
    ),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
}


ACTIVE = tuple(status for status in JobStatus if status.is_active)
NOT_FINAL = tuple(status for status in JobStatus if not status.is_final)


def can_move(old: JobStatus, new: JobStatus) -> bool:
    """True if a job may change from `old` to `new`."""
    return new in ALLOWED_MOVES[old]


class Queue(StrEnum):
    """TRAIN: runs. RENDER: images. IO: files, uploads, the Hub, and everything else."""

    TRAIN = "train"
    RENDER = "render"
    IO = "io"
