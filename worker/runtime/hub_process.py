"""The process that talks to the Hub: one per order, stopped on shutdown, cancel or a lost lease.

Workers themselves are offline (HF_HUB_OFFLINE=1), so that no library downloads anything implicitly.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from app.registry.config import Settings
from app.registry.db import Database
from app.registry.jobs.service import LostLease
from app.registry.tables.jobs import IoJob
from worker.core.hub.messages import CANCEL, DONE, FAILED, LEFT, HubReply, HubRequest
from worker.runtime.device import child_environment
from worker.runtime.lease import Lease
from worker.runtime.line_process import Ended, LineProcess

COMMAND = (sys.executable, "-P", "-m", "worker.core.hub")
LOOK_SECONDS = 0.5  # interval for checking the cancel flag and writing progress
UNDO_SECONDS = 20.0  # for the Hub to finish a commit, or to delete a new repository
UNSURE = "The Hub did not answer in time. Check on huggingface.co whether files are left there."


class InterruptReason(StrEnum):
    """The reason why an order was interrupted."""

    CANCELED = "canceled"
    STOPPED = "stopped"


class HubInterruption(Exception):
    """The order was interrupted from here; `left` says what could not be undone, if anything."""

    def __init__(self, why: InterruptReason, left: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.left = left


class HubFailure(Exception):
    """The order failed; the message gives the reason."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def make_order(settings: Settings, what: str, **values: Any) -> HubRequest:
    """An order with the access token from the settings."""
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    return HubRequest(what, settings.hub_endpoint.rstrip("/"), token, values)


def run_order(
    ordered: HubRequest,
    database: Database,
    lease: Lease,
    stopping: threading.Event,
    *,
    on_progress: Callable[[dict[str, Any]], None],
) -> HubReply:
    """Run an order; return the final answer of the Hub process.

    `on_progress` receives the newest progress, at most a few times a second. Raises
    HubInterruption, HubFailure or LostLease.
    """
    with HubProcess(ordered) as process:
        progress: dict[str, Any] | None = None
        looked = 0.0
        while True:
            answer = process.next_answer()
            if answer is not None and answer.kind == DONE:
                return answer
            if answer is not None and answer.kind == FAILED:
                raise HubFailure(answer.values["code"], answer.values["error"])
            progress = answer.values if answer is not None else progress
            if time.monotonic() - looked < LOOK_SECONDS:
                continue
            looked = time.monotonic()
            if _is_canceled(database, lease, stopping):
                return process.cancel()
            if progress is not None:
                on_progress(progress)
                progress = None


def _is_canceled(database: Database, lease: Lease, stopping: threading.Event) -> bool:
    """True if a cancel was requested. Raises if the worker stops or the lease is lost."""
    lease.check()
    if stopping.is_set():
        raise HubInterruption(InterruptReason.STOPPED)
    with database.read() as session:
        row = session.get(IoJob, lease.claim.job_id)
    if row is None or row.owner_token != lease.claim.token:
        raise LostLease(f"io_job {lease.claim.job_id} belongs to another worker now.")
    return row.cancel_requested


class HubProcess:
    """A process that runs an order; leaving the `with` block ends it. It shares our log."""

    def __init__(self, ordered: HubRequest) -> None:
        self._ordered = ordered
        self._process = LineProcess(COMMAND, _process_environment(ordered))

    def __enter__(self) -> HubProcess:
        self._process.__enter__()
        self._process.send(self._ordered.line())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()

    def cancel(self) -> HubReply:
        """Cancel the order and raise HubInterruption; return the answer if it is too late."""
        self._process.send(f"{CANCEL}\n")
        end = time.monotonic() + UNDO_SECONDS
        left = None
        while not isinstance(line := self._process.receive(end - time.monotonic()), Ended):
            if line is None:
                left = UNSURE
                break
            answer = HubReply.read(line)
            if answer is not None and answer.kind == DONE:
                return answer
            if answer is not None and answer.kind == FAILED and answer.values["code"] == LEFT:
                left = answer.values["error"]
        raise HubInterruption(InterruptReason.CANCELED, left)

    def next_answer(self) -> HubReply | None:
        """The next answer; None if there is none within a moment."""
        line = self._process.receive(LOOK_SECONDS / 2)
        if isinstance(line, Ended):
            raise RuntimeError(
                f"The Hub process ended with exit code {line.code}. See the worker's log."
            )
        return HubReply.read(line) if line is not None else None


def _process_environment(ordered: HubRequest) -> dict[str, str]:
    return child_environment(1) | {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP can be resumed within a file, and stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_ENDPOINT": ordered.endpoint,  # the token may be sent to this host
    }
