"""The process that carries out io jobs for a worker: `python -m worker.runtime.time_limits.child`.

The first line of its stdin holds the settings; then it carries out one order after another. It ends
as soon as stdin is closed. Output of libraries goes to stderr, which is the log of the worker.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

from app.registry.blobs.guard import make_guard
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs.service import Claim, LostLease
from app.registry.storage import open_store
from app.registry.storage.store import BlobNotFound, BlobStore
from app.registry.tables import all as tables  # noqa: F401 - registers every table before the first query
from app.registry.tables.jobs import IoJob
from worker.core.lean_imports import lean_imports
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait
from worker.runtime.time_limits.calls import Calls, ReportingDatabase, reporting_store
from worker.runtime.time_limits.input_size import input_size
from worker.runtime.time_limits.messages import (
    Done,
    Message,
    Order,
    Size,
    Stop,
    Wake,
    Word,
    decode,
    encode,
)

READ_BYTES = 65_536
ORPHANED = 75
REPORT_SECONDS = 0.5  # between two finished parts that are reported
SHOWN = 500  # characters
LOG_FORMAT = "[%(asctime)s: %(levelname)s/io-job] %(message)s"
WITHOUT_TORCH = frozenset(
    {
        JobKind.MAKE_THUMBNAILS,
        JobKind.CHECK_FILES,
        JobKind.DELETE_DRAFTS,
        JobKind.CAPTION_IMAGES,  # models on this machine have processes of their own
        JobKind.PREVIEW_CAPTION,
    }
)


class Outbox:
    """Messages to the worker, through the original stdout."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def tell(self, message: Message | Word) -> None:
        """Write one complete line."""
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class Inbox:
    """Orders of the worker; `stopping` is set when it stops."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def settings(self) -> Settings:
        """The settings, which come first."""
        return Settings(_env_file=None, **json.loads(self._lines.get()))

    def orders(self) -> Iterator[Order]:
        """The orders as they come."""
        while True:
            order = decode(self._lines.get())
            assert isinstance(order, Order)
            yield order

    def _read(self) -> None:
        rest = b""
        # os.read, not sys.stdin: a buffered reader can abort the interpreter at exit
        while data := os.read(0, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line == encode(Stop()).rstrip():
                    self.stopping.set()
                else:
                    self._lines.put(line)
        os._exit(ORPHANED)  # the job may hang


class ReportingLease(Lease):
    """The claim of a job whose lease the worker renews; it reports finished parts."""

    def __init__(self, database: ReportingDatabase, claim: Claim, outbox: Outbox) -> None:
        super().__init__(database, IoJob, claim, seconds=0.0)
        self._outbox = outbox
        self._reported_at = 0.0

    def note_part(self) -> None:
        """Report a finished part, at most a few times a second."""
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            self._reported_at = time.monotonic()
            self._outbox.tell(Word.PART)


class JobRunner:
    """Carries out io jobs in this process."""

    def __init__(self, settings: Settings, outbox: Outbox, stopping: threading.Event) -> None:
        self._outbox = outbox
        self._stopping = stopping
        calls = Calls(outbox.tell)
        store = open_store(settings.storage_url, settings.data_dir)
        self._store: BlobStore = reporting_store(store, calls)
        self._database = ReportingDatabase(
            make_engine(settings.sqlalchemy_url),
            lambda queue: outbox.tell(Wake(queue)),
            check_rows=make_guard(store),
        )
        self._database.calls = calls
        self._jobs = IoJobs(settings, self._database, self._store)

    def run(self, order: Order) -> Done:
        """Carry out a job; how it ended for the job loop."""
        try:
            with self._database.read() as session:
                job = session.get_one(IoJob, order.job_id)
            self._prepare(job)
            lease = ReportingLease(self._database, Claim(job.key, order.token), self._outbox)
            self._jobs.carry_out(job, lease, Path(order.scratch), self._stopping)
        except LostLease as lost:
            return Done(lost=str(lost) or "lost")
        except Exception as error:
            reason = reason_to_wait(error)
            if reason is not None:
                return Done(waits=reason)
            text = f"{type(error).__name__}: {error}"[:SHOWN]
            return Done(error=text, trace="".join(traceback.format_exception(error)))
        return Done()

    def _prepare(self, job: IoJob) -> None:
        """Tell how much the job reads, and import what it needs."""
        try:
            with self._database.read() as session:
                self._outbox.tell(Size(input_size(session, self._store, job)))
        except BlobNotFound:  # the job itself says so
            pass
        if job.kind not in WITHOUT_TORCH:
            with lean_imports("cpu"):
                from worker.runtime import import_jobs, tool_jobs, write_downloads  # noqa: F401


def main() -> None:
    """Serve one worker until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the worker too
    outbox, inbox = Outbox(), Inbox()
    settings = inbox.settings()
    logging.basicConfig(stream=sys.stderr, level=settings.log_level, format=LOG_FORMAT)
    runner = JobRunner(settings, outbox, inbox.stopping)
    for order in inbox.orders():
        outbox.tell(runner.run(order))


if __name__ == "__main__":
    main()
