"""The process that talks to the Hub: one per order, stopped on shutdown, cancel or a lost lease.

Workers themselves are offline (HF_HUB_OFFLINE=1), so that no library downloads anything implicitly.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any

from app.registry.config import Settings
from app.registry.db import Database
from app.registry.jobs.models import IoJob
from app.registry.jobs.service import LostLease
from worker.core.hub.messages import CANCEL, DONE, FAILED, LEFT, HubReply, HubRequest
from worker.runtime.device import child_environment
from worker.runtime.lease import Lease

LOOK_SECONDS = 0.5  # interval for checking the cancel flag and writing progress
END_SECONDS = 5.0
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
        self._answers: queue.Queue[HubReply | None] = queue.Queue()

    def __enter__(self) -> HubProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.core.hub"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_process_environment(self._ordered),
        )
        self._reader = threading.Thread(target=self._read_answers, name="hub-answers", daemon=True)
        self._reader.start()
        self._send_line(self._ordered.line())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def cancel(self) -> HubReply:
        """Cancel the order and raise HubInterruption; return the answer if it is too late."""
        self._send_line(f"{CANCEL}\n")
        end = time.monotonic() + UNDO_SECONDS
        left = None
        try:
            while answer := self._answers.get(timeout=max(0.0, end - time.monotonic())):
                if answer.kind == DONE:
                    return answer
                if answer.kind == FAILED and answer.values["code"] == LEFT:
                    left = answer.values["error"]
        except queue.Empty:
            left = UNSURE
        raise HubInterruption(InterruptReason.CANCELED, left)

    def _send_line(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # next_answer notices that the process ended
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def next_answer(self) -> HubReply | None:
        """The next answer; None if there is none within a moment."""
        try:
            answer = self._answers.get(timeout=LOOK_SECONDS / 2)
        except queue.Empty:
            return None
        if answer is None:
            code = self._process.wait()
            raise RuntimeError(
                f"The Hub process ended with exit code {code}. See the worker's log."
            )
        return answer

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = HubReply.read(line)
            if answer is not None:
                self._answers.put(answer)
        self._answers.put(None)


def _process_environment(ordered: HubRequest) -> dict[str, str]:
    return child_environment(1) | {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP can be resumed within a file, and stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_ENDPOINT": ordered.endpoint,  # the token may be sent to this host
    }
