"""Checks the stored files: that every file that rows need is there, and that each has its hash.

References are read before the store is listed, because a blob is stored before the row that refers
to it; what seems to be missing is looked up again, as rows and files may be deleted meanwhile.
A job reads a slice now and then, so each local file in 30 days.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from app.registry.blobs import findings, thumbnails
from app.registry.blobs.subjects import list_references
from app.registry.db import Database, database_now
from app.registry.job_kinds.kinds import CheckFilesArgs, CheckFilesResult, DamagedJob, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import orders_if_due
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore, verify
from app.registry.tables.blobs import BlobCheck, FileProblem
from app.registry.tables.jobs import IoJob

NOTED_AT_ONCE = 200  # results in one transaction
NOTE_SECONDS = 2.0
READ_INTERVAL = timedelta(days=30)  # between two readings of a local file
CHECK_INTERVAL = timedelta(hours=24)  # between two looks for missing files, and after a failure
SLICE_SECONDS = 300.0  # of reading in one job; what is left is read by the next one
CHECK_PRIORITY = 210  # after all other jobs


class StoreCheck:
    """A check of a store; its results are in the database at once, and in `problems`.

    `on_chunk` is called often, with the number of bytes that were read since the last call; it may
    raise to stop the check.
    """

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        *,
        on_chunk: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.problems: dict[str, FileProblem] = {}
        self.files_read = 0
        self.bytes_read = 0
        self._database = database
        self._store = store
        self._on_chunk = on_chunk
        self._sound: list[str] = []
        self._noted_at = time.monotonic()

    def find_missing(self) -> dict[str, int]:
        """Note the files that rows need and that are not there; return the others with their size.

        Files whose content must be read, because of their size or an earlier check, come first.
        """
        with self._database.read() as session:
            needed = {one.sha256: one.size for one in list_references(session)}
            known_bad = findings.problems(session)
        stored: dict[str, int] = {}
        for blob in self._store.list():
            self._on_chunk(0)
            stored[blob.sha256] = blob.size
        missing = self._still_missing(needed.keys() - stored.keys())
        with self._database.write() as session:
            findings.note(session, missing, FileProblem.MISSING)
            findings.keep_only(session, {*stored, *missing})
        self.problems |= dict.fromkeys(missing, FileProblem.MISSING)
        self.suspects = [
            sha256
            for sha256, size in stored.items()
            if sha256 in known_bad or needed.get(sha256) not in (None, size)
        ]
        return {sha256: stored[sha256] for sha256 in (*self.suspects, *stored)}

    def _still_missing(self, candidates: Iterable[str]) -> list[str]:
        absent = [sha256 for sha256 in candidates if not self._store.exists(sha256)]
        with self._database.read() as session:
            return sorted({one.sha256 for one in list_references(session, absent)})

    def due(self, stored: Iterable[str], *, before: datetime) -> list[str]:
        """Of these files, those that were not read since then: suspects, new ones, the oldest."""
        with self._database.read() as session:
            query = select(BlobCheck.sha256, BlobCheck.checked_at)
            read_at = dict(session.exec(query.where(col(BlobCheck.problem).is_(None))).all())
        waiting = [name for name in stored if name not in read_at or read_at[name] < before]
        return sorted(waiting, key=lambda name: read_at[name].timestamp() if name in read_at else 0)

    def read(self, hashes: Sequence[str], *, seconds: float | None = None) -> int:
        """Read these files, for about this long; return how many are left."""
        started = time.monotonic()
        try:
            for number, sha256 in enumerate(hashes):
                if seconds is not None and time.monotonic() - started > seconds:
                    return len(hashes) - number
                self._read_one(sha256)
        finally:
            self._note_sound()
        return 0

    def _read_one(self, sha256: str) -> None:
        try:
            verify(self._store, sha256, on_chunk=self._on_read)
        except BlobNotFound:  # deleted since it was listed
            return
        except BlobDamaged:
            self.problems[sha256] = FileProblem.DAMAGED
            with self._database.write() as session:
                findings.note(session, [sha256], FileProblem.DAMAGED)
        else:
            self._sound.append(sha256)
        self.files_read += 1
        is_late = time.monotonic() - self._noted_at > NOTE_SECONDS
        if len(self._sound) >= NOTED_AT_ONCE or is_late:
            self._note_sound()

    def order_thumbnails(self) -> None:
        """Let the io worker make the damaged and missing thumbnails again."""
        if self.problems:
            with self._database.write() as session:
                thumbnails.delete_unusable(session, self.problems)

    def _on_read(self, size: int) -> None:
        self.bytes_read += size
        self._on_chunk(size)

    def _note_sound(self) -> None:
        self._noted_at = time.monotonic()
        if self._sound:
            with self._database.write() as session:
                findings.note(session, self._sound)
            self._sound = []


def is_due(session: Session) -> bool:
    """True if no check is queued or running, and the last one left files or is a day old."""
    checks = select(IoJob).where(IoJob.kind == JobKind.CHECK_FILES)
    last = session.exec(checks.order_by(col(IoJob.id).desc()).limit(1)).first()
    if last is None:
        return True
    if not last.state.is_final or last.finished_at is None:
        return False
    if last.state is JobStatus.SUCCEEDED and _files_left(last):
        return True
    return last.finished_at < database_now(session) - CHECK_INTERVAL


def _files_left(job: IoJob) -> int:
    try:
        return job.outcome(CheckFilesResult).left or 0
    except DamagedJob:
        return 0


order_if_due = orders_if_due(is_due, CheckFilesArgs(), priority=CHECK_PRIORITY)
