"""The rooms of this process: opened once, woken by hints, closed at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.registry import tables  # noqa: F401 - every table is known before the first query
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.jobs.models import IO_THREADS
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.wakeups import Hints
from worker.runtime.io_jobs import IoWork
from worker.runtime.job_loop import Room, Work
from worker.runtime.render_jobs import Rendering
from worker.runtime.train_jobs import Training

STOP_SECONDS = 60.0

log = logging.getLogger(__name__)

_rooms: dict[str, Room] = {}
_hints: Hints | None = None
_database: Database | None = None


def start(settings: Settings, queues: Sequence[str]) -> None:
    """Open a room for each queue and begin to work; asking twice opens nothing twice."""
    global _database, _hints
    if _database is None:
        _hints = Hints(settings.broker_url)
        _database = Database(make_engine(settings.sqlalchemy_url), _hints.send)
    store = open_store(settings.storage_url, settings.data_dir)
    for queue in queues:
        if queue not in _rooms:
            _rooms[queue] = Room(
                _database,
                _work(queue, settings, _database, store),
                lease_seconds=settings.lease_seconds,
                threads=IO_THREADS if queue == "io" else 1,
            )
            _rooms[queue].start()


def serve_hint(queue: str) -> None:
    """Let the room of this queue look for work; returns when it found a pause."""
    room = _rooms.get(queue)
    if room is None:
        log.warning("A hint for %s came to a worker that does not work on it.", queue)
    else:
        room.serve_hint()


def request_stop() -> None:
    """Ask every room to give its jobs back; returns at once."""
    for room in _rooms.values():
        room.request_stop()


def stop() -> None:
    """Ask every room to end and wait for it."""
    global _database, _hints
    request_stop()
    for room in _rooms.values():
        if not room.join(STOP_SECONDS):
            log.error("A worker thread did not end in %.0f s.", STOP_SECONDS)
    _rooms.clear()
    if _hints is not None:
        _hints.close()
    if _database is not None:
        _database.dispose()
    _hints = _database = None


def _work(queue: str, settings: Settings, database: Database, store: BlobStore) -> Work:
    if queue == "train":
        return Training(settings, database, store)
    if queue == "render":
        return Rendering(settings, database, store)
    if queue == "io":
        return IoWork(settings, database, store)
    raise ValueError(f"There is no queue “{queue}”; choose train, render or io.")
