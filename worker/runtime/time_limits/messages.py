"""Messages between an io worker and the process of its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from worker.core.child_pipes import MessageLines


class Word(StrEnum):
    """Messages without content from the process: what its job does now."""

    PART = "part"  # finished one; the clock starts again
    CALL = "call"  # calls the storage or the database
    BACK = "back"  # and works on its own again


@dataclass(frozen=True)
class Order:
    """To the process: carry out this job."""

    job_id: int
    token: str
    scratch: str


@dataclass(frozen=True)
class Stop:
    """To the process: the worker stops, so the job should end or return to the queue."""


@dataclass(frozen=True)
class Size:
    """From the process: the bytes that the job reads."""

    size_bytes: int


@dataclass(frozen=True)
class Wake:
    """From the process: it has queued a job, so wake a worker of this queue."""

    queue: str


@dataclass(frozen=True)
class Done:
    """From the process: the job has ended, and its row says how.

    `lost`: another worker owns it. `waits`: the sentence of an outage, which is not its fault.
    `error`: type and text of an unexpected error, with its `trace`.
    """

    lost: str = ""
    waits: str = ""
    error: str = ""
    trace: str = ""


Message = Order | Stop | Size | Wake | Done | Word
_LINES = MessageLines[Message](Message)
encode, decode = _LINES.encode, _LINES.decode
