"""The trash of the store: what sweeps took, until it is deleted for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from app.registry.storage.store import BlobStat, BlobStore
from app.registry.wording import plural, size_text

RETENTION = timedelta(days=14)  # how long a blob stays in the trash


@dataclass(frozen=True)
class Amount:
    """A number of files and their total size."""

    files: int = 0
    size_bytes: int = 0

    @property
    def text(self) -> str:
        """The amount in words: 3 files, 1.2 MB."""
        return f"{plural(self.files, 'file')}, {size_text(self.size_bytes)}"

    @classmethod
    def of(cls, blobs: Iterable[BlobStat]) -> Self:
        """The amount of these blobs."""
        sizes = [blob.size for blob in blobs]
        return cls(len(sizes), sum(sizes))


NOTHING = Amount()


def amount(store: BlobStore) -> Amount:
    """The number and size of the files in the trash."""
    return Amount.of(store.list_trash())


def delete_all(store: BlobStore, blobs: Iterable[BlobStat]) -> Amount:
    """Delete these blobs in the trash for good; return their amount."""
    files = size_bytes = 0
    for blob in blobs:
        store.delete_from_trash(blob.sha256)
        files, size_bytes = files + 1, size_bytes + blob.size
    return Amount(files, size_bytes)


def restore(store: BlobStore) -> Amount:
    """Bring everything in the trash back; return what came back."""
    return Amount.of([blob for blob in store.list_trash() if store.take_back(blob.sha256)])
