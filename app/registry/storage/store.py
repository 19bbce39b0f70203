"""Protocol of blob stores, which name files by the SHA-256 of their content.

There are two implementations: a folder, and an object store (S3, R2, MinIO, GCS, Azure through
obstore). Callers store the blob before the row that refers to it, and delete the row before the
blob. Storing the same bytes again renews the blob's time, so a sweep of old unreferenced blobs
never deletes one that was just uploaded again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast

from app.registry.errors import AppError, NotFound, StorageFullError, TooLarge
from worker.core.wording import size_text

CHUNK = 1 << 20  # bytes read at a time
SHA256 = re.compile(r"[0-9a-f]{64}")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class BlobNotFound(NotFound):
    """No blob with this hash is stored."""

    code = "blob_not_found"


class BlobDamaged(AppError):
    """The stored bytes no longer have the hash they were stored under."""

    status = 500
    title = "A stored file is damaged"
    code = "blob_damaged"


class StorageUnavailable(AppError):
    """The object store failed or did not answer."""

    status = 503
    title = "Storage does not answer"
    code = "storage_unavailable"


@dataclass(frozen=True)
class Blob:
    """Hash and size of a stored blob."""

    sha256: str
    size: int


@dataclass(frozen=True)
class BlobStat:
    """A stored blob; `modified` (UTC) is the last time it was stored."""

    sha256: str
    size: int
    modified: datetime


class BlobWriter(Protocol):
    """Writes a blob in chunks; nothing is stored unless `commit` is called in the `with` block."""

    def write(self, chunk: bytes) -> None:
        """Append a chunk. Raises TooLarge over the limit, StorageFullError on a full disk."""

    def commit(self) -> Blob:
        """Store the written bytes under their hash."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStore(Protocol):
    """Content-addressed files. Names that are not hashes raise BlobNotFound."""

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """A writer for a new blob of at most `limit` bytes."""

    def put_bytes(self, data: bytes) -> Blob:
        """Store these bytes."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def put_file(self, path: Path) -> Blob:
        """Store a copy of this file."""
        with path.open("rb") as source, self.writer() as writer:
            while chunk := source.read(CHUNK):
                writer.write(chunk)
            return writer.commit()

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader. Raises BlobNotFound."""

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The blob as a read-only file: the stored one or a copy in `scratch`."""

    def stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob. Raises BlobNotFound."""

    def exists(self, sha256: str) -> bool:
        """True if the blob is stored."""

    def delete(self, sha256: str) -> None:
        """Delete the blob; a missing one is ignored."""

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs, in no particular order."""

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A signed URL that browsers may fetch directly, if the store supports that."""

    def check(self) -> None:
        """Raise StorageUnavailable or StorageFullError if the store cannot be used."""

    def free_bytes(self) -> int | None:
        """Free space, if known."""


def verify(store: BlobStore, sha256: str) -> None:
    """Read the whole blob. Raises BlobDamaged if its hash does not match."""
    with store.open(sha256) as blob:
        check_hash(hashlib.file_digest(cast(Any, blob), "sha256").hexdigest(), sha256)


class BlobTarget(Protocol):
    """The interface of a store for its writers."""

    def temporary_folder(self) -> Path:
        """Folder for blobs that are not complete yet."""

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move or upload a flushed temporary file to its final path."""


class SpooledWriter:
    """A BlobWriter that hashes into a temporary file; the store publishes it."""

    def __init__(self, store: BlobTarget, *, limit: int | None) -> None:
        self._store = store
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        with translate_full_disk():
            descriptor, name = tempfile.mkstemp(prefix="blob-", dir=store.temporary_folder())
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        """Append a chunk. Raises TooLarge over the limit, StorageFullError on a full disk."""
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise TooLarge(f"The file is larger than {size_text(self._limit)}, the most allowed.")
        self._hash.update(chunk)
        with translate_full_disk():
            self._file.write(chunk)

    def commit(self) -> Blob:
        """Store the written bytes under their hash."""
        blob = Blob(self._hash.hexdigest(), self._size)
        with translate_full_disk():
            self._file.flush()
            self._store.publish(self._file, self._path, blob)
        return blob

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # flushing the buffer may fail on a full disk, but the file is discarded anyway
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def require_hash(sha256: str) -> str:
    """Return the hash if it is valid, in lower-case hexadecimal. Raises BlobNotFound."""
    if not SHA256.fullmatch(sha256):
        raise BlobNotFound("There is no stored file with this name.")
    return sha256


def not_found(sha256: str) -> BlobNotFound:
    """The error for a missing blob."""
    return BlobNotFound(f"The stored file {sha256[:12]}… is missing.")


def check_hash(found: str, expected: str) -> None:
    """Raise BlobDamaged if the hashes differ."""
    if found != expected:
        raise BlobDamaged(
            f"The stored file {expected[:12]}… is damaged: its content has changed. "
            "Restore it from a backup, or upload it again."
        )


@contextlib.contextmanager
def translate_full_disk() -> Iterator[None]:
    """Turn the system's "no space left" error into StorageFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(
                "The disk is full, so nothing was stored. Free some space, then try again."
            ) from error
        raise
