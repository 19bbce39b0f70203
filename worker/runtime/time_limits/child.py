"""The process that carries out io jobs for a worker: `python -m worker.runtime.time_limits.child`.

The first line of its stdin holds the settings; then it carries out one order after another. It ends
as soon as stdin is closed. Output of libraries goes to stderr, which is the log of the worker.
Its database and its store report their calls: a job that waits for them does no work.
"""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from sqlmodel import Session, col, select

from app.registry.blobs.guard import make_guard
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.caption_kinds import CaptionArgs
from app.registry.job_kinds.kinds import (
    EvaluationArgs,
    ExtractAdapterArgs,
    FuseAdapterArgs,
    ImportAdapterArgs,
    JobKind,
    MeasureOverlapArgs,
    MergeAdaptersArgs,
)
from app.registry.jobs.rights import making_as_owner
from app.registry.jobs.service import Claim, LostLease
from app.registry.storage import open_store
from app.registry.storage.store import BlobNotFound, BlobStore
from app.registry.tables import all as tables  # noqa: F401 - registers every table before the first query
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from worker.core.child_pipes import Outbox, read_lines
from worker.core.lean_imports import lean_imports
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait
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


class Inbox:
    """Orders of the worker; `stopping` is set when it stops."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        read_lines(self._take)

    def settings(self) -> Settings:
        """The settings, which come first."""
        return Settings(_env_file=None, **json.loads(self._lines.get()))

    def orders(self) -> Iterator[Order]:
        """The orders as they come."""
        while True:
            order = decode(self._lines.get())
            assert isinstance(order, Order)
            yield order

    def _take(self, line: bytes) -> None:
        if line == encode(Stop()).rstrip():
            self.stopping.set()
        else:
            self._lines.put(line)


class Calls:
    """Reports when the first of several nested calls begins and the last one ends."""

    def __init__(self, tell: Callable[[Word], None]) -> None:
        self._tell = tell
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """A block that is a call."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            before, self._count = self._count, self._count + by
            if not before or not self._count:
                self._tell(Word.CALL if by > 0 else Word.BACK)


class ReportingDatabase(Database):
    """A database whose sessions are calls."""

    calls: Calls

    @contextmanager
    def read(self, *, once: bool = False) -> Iterator[Session]:
        """A session for reading."""
        with self.calls.calling(), super().read(once=once) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end or rolls back."""
        with self.calls.calling(), super().write() as session:
            yield session


class _ReportingStore:
    def __init__(self, store: BlobStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*arguments: Any, **options: Any) -> Any:
            with self._calls.calling():
                return found(*arguments, **options)

        return call


def reporting_store(store: BlobStore, calls: Calls) -> BlobStore:
    """This store, each method of which is a call; what `open` and `list` give is read without."""
    return cast(BlobStore, _ReportingStore(store, calls))


class ReportingLease(Lease):
    """The claim of a job whose lease the worker renews; it reports finished parts."""

    def __init__(self, database: ReportingDatabase, claim: Claim, outbox: Outbox[Message]) -> None:
        super().__init__(database, IoJob, claim, seconds=0.0)
        self._outbox = outbox
        self._reported_at = 0.0

    def note_part(self) -> None:
        """Report a finished part, at most a few times a second."""
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            self._reported_at = time.monotonic()
            self._outbox.send(Word.PART)


class JobRunner:
    """Carries out io jobs in this process."""

    def __init__(
        self, settings: Settings, outbox: Outbox[Message], stopping: threading.Event
    ) -> None:
        self._outbox = outbox
        self._stopping = stopping
        self._accounts = settings.accounts
        calls = Calls(outbox.send)
        store = open_store(settings.storage_url, settings.data_dir)
        self._store: BlobStore = reporting_store(store, calls)
        self._database = ReportingDatabase(
            make_engine(settings.sqlalchemy_url),
            lambda queue: outbox.send(Wake(queue)),
            check_rows=make_guard(store),
            limits=settings.limits,
        )
        self._database.calls = calls
        self._jobs = IoJobs(settings, self._database, self._store)

    def run(self, order: Order) -> Done:
        """Carry out a job; how it ended for the job loop."""
        try:
            with self._database.read() as session:
                job = session.get_one(IoJob, order.job_id)
                making = making_as_owner(session, job) if self._accounts else nullcontext()
            self._prepare(job)
            lease = ReportingLease(self._database, Claim(job.key, order.token), self._outbox)
            with making:
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
                self._outbox.send(Size(_input_size(session, self._store, job)))
        except BlobNotFound:  # the job itself says so
            pass
        if job.kind not in WITHOUT_TORCH:
            with lean_imports("cpu"):
                from worker.runtime import import_jobs, tool_jobs, write_downloads  # noqa: F401


def _input_size(session: Session, store: BlobStore, job: IoJob) -> int:
    """The size of the files that a job reads, in bytes; what is missing counts as empty.

    Raises DamagedJob, BlobNotFound and outages.
    """
    args = job.readable_arguments()
    if isinstance(args, ImportAdapterArgs):
        return store.stat(args.sha256).size
    if isinstance(args, CaptionArgs | EvaluationArgs):
        return 0
    adapters: list[int | None] = []
    bases: list[int | None] = []
    if isinstance(args, (MergeAdaptersArgs, FuseAdapterArgs)):
        adapters = [part.version_id for part in args.parts]
    if isinstance(args, (FuseAdapterArgs, ExtractAdapterArgs)):
        bases = [job.subject_id]
    elif not adapters:
        adapters = [job.subject_id]
    if isinstance(args, MeasureOverlapArgs):
        adapters.append(args.other_id)
    if isinstance(args, ExtractAdapterArgs):
        bases.append(args.tuned_id)
    return _sizes(session, AdapterVersion, adapters) + _sizes(session, BaseModel, bases)


def _sizes(
    session: Session, table: type[AdapterVersion] | type[BaseModel], ids: Iterable[int | None]
) -> int:
    known = [key for key in ids if key is not None]
    sizes = session.exec(select(col(table.size_bytes)).where(col(table.id).in_(known)))
    return sum(size or 0 for size in sizes)


def main() -> None:
    """Serve one worker until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the worker too
    outbox, inbox = Outbox(encode), Inbox()
    settings = inbox.settings()
    logging.basicConfig(stream=sys.stderr, level=settings.log_level, format=LOG_FORMAT)
    runner = JobRunner(settings, outbox, inbox.stopping)
    for order in inbox.orders():
        outbox.send(runner.run(order))


if __name__ == "__main__":
    main()
