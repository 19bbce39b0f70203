"""Adapters with made-up looks, which nobody has to measure."""

from __future__ import annotations

import hashlib

import numpy as np

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.blobs import looks
from app.registry.db import Database
from app.registry.likeness import measuring
from worker.core.likeness import FEATURES, pack


def named(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def look(value: float) -> bytes:
    """A look that is `value` away from that of 0."""
    return pack(np.full(FEATURES, value))


def add_adapter(
    database: Database,
    name: str,
    value: float | None,
    *,
    family: str = "sd1",
    measured: bool = True,
) -> int:
    """The id of an adapter whose cover has this look; None: it has no cover."""
    cover = None if value is None else named(f"cover of {name}")
    new = NewVersion(name, family, named(name), 10, 4, 4.0, cover_sha256=cover)
    with database.write() as session:
        adapter_id = publish(session, new).adapter_id
        if cover and value is not None:
            looks.save(session, {cover: look(value)})
    if measured:
        measure(database)
    return adapter_id


def measure_by_chance(database: Database) -> None:
    """Measure all adapters and datasets, with looks that follow from the hashes of the images."""
    with database.write() as session:
        adapters = measuring.list_adapters(session, limit=1_000)
        found = [measuring.images_of(session, adapter, latest) for adapter, latest in adapters]
        hashes = looks.missing_in_datasets(session, limit=1_000)
        hashes += [sha256 for one in found for sha256 in one.hashes]
        looks.save(session, {sha256: look(int(sha256[:4], 16) / 2**16) for sha256 in hashes})
        for one in found:
            measuring.save_adapter(session, one)


def measure(database: Database) -> None:
    """Measure all adapters by the looks of images that are known."""
    with database.write() as session:
        for adapter, latest in measuring.list_adapters(session, limit=1_000):
            measuring.save_adapter(session, measuring.images_of(session, adapter, latest))
