"""The services that pages, commands, and tests share: settings, database, storage, decoder."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.blobs.disk_quota import DiskBooking
from app.registry.blobs.guard import make_guard
from app.registry.config import Settings
from app.registry.db import WEB_ANSWER_SECONDS, WEB_PATIENCE_SECONDS, Database, make_engine
from app.registry.images.decoder import ImageDecoder
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.temporary import remove_abandoned
from app.registry.wakeups import WakeUps


@dataclass(frozen=True)
class AppState:
    """Settings and the services behind the pages and the API."""

    settings: Settings
    database: Database
    store: BlobStore
    decoder: ImageDecoder
    wakeups: WakeUps

    def close(self) -> None:
        """Close the services."""
        self.decoder.close()
        self.wakeups.close()
        self.database.dispose()


def make_state(settings: Settings) -> AppState:
    """Create the services; the caller closes them. Removes what killed processes left."""
    remove_abandoned(settings.scratch)
    wakeups = WakeUps(settings.broker_url)
    store = open_store(settings.storage_url, settings.data_dir)
    engine = make_engine(
        settings.sqlalchemy_url,
        patience=WEB_PATIENCE_SECONDS,
        answer_seconds=WEB_ANSWER_SECONDS,
    )
    return AppState(
        settings=settings,
        database=Database(
            engine,
            wakeups.send,
            check_rows=make_guard(store),
            book_rows=DiskBooking(store),
            limits=settings.limits,
        ),
        store=store,
        decoder=ImageDecoder(),
        wakeups=wakeups,
    )
