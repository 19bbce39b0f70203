"""The services that pages, commands, and tests share: settings, database, storage, decoder."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.config import Settings
from app.registry.datasets.images import ImageDecoder
from app.registry.db import Database, make_engine
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.wakeups import WakeUps


@dataclass(frozen=True)
class AppState:
    """Settings and the services behind the pages and the API."""

    settings: Settings
    database: Database
    store: BlobStore
    decoder: ImageDecoder
    wakeups: WakeUps


def make_state(settings: Settings) -> AppState:
    """Create the services; the caller closes them."""
    wakeups = WakeUps(settings.broker_url)
    return AppState(
        settings=settings,
        database=Database(make_engine(settings.sqlalchemy_url), send_wakeup=wakeups.send),
        store=open_store(settings.storage_url, settings.data_dir),
        decoder=ImageDecoder(),
        wakeups=wakeups,
    )
