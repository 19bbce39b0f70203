"""The clock of an io worker, which queues the jobs that nobody requests.

Every io worker has a clock, but of concurrent ones only one creates a job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from app.registry.adapters import folders
from app.registry.blobs import check, sweep
from app.registry.config import Settings
from app.registry.datasets import measures
from app.registry.db import Database
from app.registry.deletion import renders
from app.registry.likeness import measuring

FIRST_LOOK_SECONDS = 60.0  # do not slow down the start of a worker
LOOK_SECONDS = 60.0
SELDOM_SECONDS = 600.0
ORDERS = (
    renders.order_if_due,
    sweep.order_if_due,
    measures.order_if_due,
    check.order_if_due,
)

log = logging.getLogger(__name__)


class UpkeepClock:
    """Queues due jobs while it is open."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._closed = threading.Event()

    def open(self) -> None:
        """Start the clock.

        The folders of other programs, if there are any, have a thread of their own, because a
        network drive that is away can make it wait for long.
        """
        self._start("upkeep-clock", SELDOM_SECONDS, ORDERS)
        self._start("look-clock", LOOK_SECONDS, [measuring.order_if_due])
        if self._settings.export_folder_paths:
            in_folders = partial(folders.order_due, self._settings)
            self._start("folder-clock", LOOK_SECONDS, [in_folders])

    def _start(self, name: str, *arguments: Any) -> None:
        threading.Thread(target=self._run, args=arguments, name=name, daemon=True).start()

    def close(self) -> None:
        """Stop the clock."""
        self._closed.set()

    def _run(self, seconds: float, orders: Sequence[Callable[[Database], Any]]) -> None:
        wait = FIRST_LOOK_SECONDS
        while not self._closed.wait(wait):
            wait = seconds
            try:
                for order in orders:
                    order(self._database)
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot reach the database, will retry: %s", error)
