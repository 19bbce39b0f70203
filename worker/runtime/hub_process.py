"""The process that asks the Hub: started for one order, ended by a stop, a cancel or a lost lease.

Workers themselves are offline (HF_HUB_OFFLINE=1), so that no library fetches anything by itself.
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
from worker.core.hub.orders import CANCEL, DONE, FAILED, LEFT, HubReply, HubRequest
from worker.runtime.device import child_environment
from worker.runtime.lease import Lease

LOOK_SECONDS = 0.5  # how often the row is asked for a wish to cancel, and progress written
END_SECONDS = 5.0
UNDO_SECONDS = 20.0  # for the Hub to take a commit that was sent, or to delete what was made
UNSURE = "The Hub did not answer in time: look there whether something was left."


class Broken(StrEnum):
    """Why an order was not carried out to its end."""

    CANCELED = "canceled"
    STOPPED = "stopped"


class BrokenOff(Exception):
    """The order was broken off from here; `why` says by whom, `left` what could not be undone."""

    def __init__(self, why: Broken, left: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.left = left


class HubFailed(Exception):
    """The Hub process says in a sentence why it could not."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def order(settings: Settings, what: str, **values: Any) -> HubRequest:
    """An order in the name of whoever runs Brushwork."""
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    return HubRequest(what, settings.hub_endpoint.rstrip("/"), token, values)


def carry_out(
    ordered: HubRequest,
    database: Database,
    lease: Lease,
    stopping: threading.Event,
    *,
    on_progress: Callable[[dict[str, Any]], None],
) -> HubReply:
    """What the Hub process answers in the end; raises BrokenOff, HubFailed or LostLease.

    `on_progress` gets the newest progress, a few times a second at most.
    """
    with HubProcess(ordered) as process:
        told: dict[str, Any] | None = None
        looked = 0.0
        while True:
            answer = process.next_answer()
            if answer is not None and answer.kind == DONE:
                return answer
            if answer is not None and answer.kind == FAILED:
                raise HubFailed(answer.values["code"], answer.values["error"])
            told = answer.values if answer is not None else told
            if time.monotonic() - looked < LOOK_SECONDS:
                continue
            looked = time.monotonic()
            if _is_canceled(database, lease, stopping):
                return process.cancel()
            if told is not None:
                on_progress(told)
                told = None


def _is_canceled(database: Database, lease: Lease, stopping: threading.Event) -> bool:
    """True when somebody asked for the end of the job; raises when it is not for us to go on."""
    lease.check()
    if stopping.is_set():
        raise BrokenOff(Broken.STOPPED)
    with database.read() as session:
        row = session.get(IoJob, lease.claim.job_id)
    if row is None or row.owner_token != lease.claim.token:
        raise LostLease(f"io_job {lease.claim.job_id} belongs to another worker now.")
    return row.cancel_requested


class HubProcess:
    """The process at work on an order; leaving the `with` block ends it. It logs where we do."""

    def __init__(self, ordered: HubRequest) -> None:
        self._ordered = ordered
        self._answers: queue.Queue[HubReply | None] = queue.Queue()

    def __enter__(self) -> HubProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.core.hub"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(self._ordered),
        )
        self._reader = threading.Thread(target=self._read, name="hub-answers", daemon=True)
        self._reader.start()
        self._tell(self._ordered.line())
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
        """Let it undo what it has begun: raises BrokenOff; its answer when all was done already."""
        self._tell(f"{CANCEL}\n")
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
        raise BrokenOff(Broken.CANCELED, left)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed by who waits for an answer
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def next_answer(self) -> HubReply | None:
        """What it says next; None when it says nothing for a moment."""
        try:
            answer = self._answers.get(timeout=LOOK_SECONDS / 2)
        except queue.Empty:
            return None
        if answer is None:
            code = self._process.wait()
            raise RuntimeError(f"The process that asks the Hub ended with {code}; the log says why")
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = HubReply.read(line)
            if answer is not None:
                self._answers.put(answer)
        self._answers.put(None)


def _environment(ordered: HubRequest) -> dict[str, str]:
    return child_environment(1) | {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP can go on in the middle of a file, and be stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_ENDPOINT": ordered.endpoint,  # its host is then one that the token may go to
    }
