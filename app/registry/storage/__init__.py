"""Blobs named by the SHA-256 of their content, in a folder or an object store."""

from __future__ import annotations

from pathlib import Path

from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobStore


def open_store(storage_url: str | None, data_dir: Path) -> BlobStore:
    """Open the configured store: a bucket, or the folder `blobs` in the data folder."""
    if storage_url:
        from app.registry.storage.bucket import ObjectBlobStore  # a folder need not load obstore

        return ObjectBlobStore(storage_url, scratch=data_dir / "scratch")
    return LocalBlobStore(data_dir / "blobs")
