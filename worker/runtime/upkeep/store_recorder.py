"""Every worker writes into the store how far its database has got, while something happens.

So a database of an earlier hour is known when it is put beside the files
(`app.registry.blobs.ownership`).
"""

from __future__ import annotations

import logging
import threading
import time

import sqlalchemy as sa

from app.registry.blobs import ownership
from app.registry.blobs.ownership import Owner
from app.registry.blobs.sweep import ADOPT_COMMAND
from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.storage.store import BlobStore

RECORD_SECONDS = 60.0
LOOK_SECONDS = 3_600.0  # how often the store is looked at while nothing happens

log = logging.getLogger(__name__)


class StoreRecorder:
    """Records the newest event once a minute while it is open."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store
        self._closed = threading.Event()
        self._recorded: int | None = None
        self._looked = 0.0
        self._said = ""

    def open(self) -> None:
        """Start recording."""
        threading.Thread(target=self._run, name="store-recorder", daemon=True).start()

    def close(self) -> None:
        """Stop recording; does not wait."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(RECORD_SECONDS):
            self.look()

    def look(self) -> None:
        """Record the newest event, if there is a new one; say once what is wrong."""
        try:
            newest = ownership.newest_settled(self._database)
            is_recorded = newest == self._recorded
            if is_recorded and time.monotonic() - self._looked < LOOK_SECONDS:
                return
            found = ownership.record(self._database, self._store)
        except (AppError, OSError, sa.exc.SQLAlchemyError) as error:
            self._say(f"Cannot record the state of the database in the store: {error}")
            return
        self._recorded, self._looked = newest, time.monotonic()
        told = "" if found.owner is Owner.NOBODY else found.sentence
        self._say(f"{told} Sweeps only report until `{ADOPT_COMMAND}`." if told else "")

    def _say(self, sentence: str) -> None:
        if sentence and sentence != self._said:
            log.warning("%s", sentence)
        self._said = sentence
