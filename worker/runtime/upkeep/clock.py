"""The clock of an io worker, which queues the jobs that nobody requests.

Every io worker has a clock, but of concurrent ones only one creates a job.
"""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from app.registry.adapters import folders
from app.registry.blobs import check_jobs as background
from app.registry.blobs import sweep
from app.registry.datasets.measures import backfill
from app.registry.db import Database
from app.registry.deletion import drafts

FIRST_LOOK_SECONDS = 60.0  # do not slow down the start of a worker
LOOK_SECONDS = 60.0
SELDOM = 10  # looks
OFTEN = (folders.order_due,)
ORDERS = (drafts.order_if_due, sweep.order_if_due, backfill.order_if_due, background.order_if_due)

log = logging.getLogger(__name__)


class UpkeepClock:
    """Queues due jobs while it is open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = threading.Event()

    def open(self) -> None:
        """Start the clock."""
        threading.Thread(target=self._run, name="upkeep-clock", daemon=True).start()

    def close(self) -> None:
        """Stop the clock."""
        self._closed.set()

    def _run(self) -> None:
        wait, looks = FIRST_LOOK_SECONDS, 0
        while not self._closed.wait(wait):
            orders = OFTEN if looks % SELDOM else (*OFTEN, *ORDERS)
            wait, looks = LOOK_SECONDS, looks + 1
            try:
                for order in orders:
                    order(self._database)
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot reach the database, will retry: %s", error)
