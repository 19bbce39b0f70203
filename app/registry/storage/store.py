"""Blobs by the SHA-256 of their content: the only code that knows where files lie.

Two stores with one protocol: a folder (durable: fsync before and after the rename) and an object
store (S3, R2, MinIO, GCS, Azure through obstore). The order of operations is the caller's: blob
first, row second; row away first, blob later. Storing the same bytes again renews the blob, so a
sweep of old unreferenced blobs never takes one that was just uploaded once more.
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
    """The object store refused or did not answer."""

    status = 503
    title = "Storage does not answer"
    code = "storage_unavailable"


@dataclass(frozen=True)
class Blob:
    """What was stored: hash and bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class BlobStat:
    """A stored blob; `modified` (UTC) is when it was last stored, not first."""

    sha256: str
    size: int
    modified: datetime


class BlobWriter(Protocol):
    """Takes a blob in pieces; leaving the `with` block without `commit` leaves nothing behind."""

    def write(self, chunk: bytes) -> None:
        """Append; TooLarge past the limit, StorageFullError when the disk is full."""

    def commit(self) -> Blob:
        """Store what was written under its hash."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStore(Protocol):
    """Content-addressed files. What is no hash is BlobNotFound, never a path."""

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """Store bytes as they come, at most `limit` of them."""

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
        """A seekable reader; BlobNotFound when there is none."""

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The blob as a file to read, never to change: the stored one or a copy in `scratch`."""

    def stat(self, sha256: str) -> BlobStat:
        """Size and age; BlobNotFound when there is none."""

    def exists(self, sha256: str) -> bool:
        """Whether the blob is stored."""

    def delete(self, sha256: str) -> None:
        """Take the blob away; none there is no error."""

    def list(self) -> Iterator[BlobStat]:
        """Every stored blob, in no particular order."""

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A signed address that a browser may fetch directly, where the store has such."""

    def check(self) -> None:
        """Return when the store can be used; raise StorageUnavailable or StorageFullError."""

    def free_bytes(self) -> int | None:
        """Room left, where that is known."""


def verify(store: BlobStore, sha256: str) -> None:
    """Read the whole blob; raise BlobDamaged when it no longer has its hash."""
    with store.open(sha256) as blob:
        check_hash(hashlib.file_digest(cast(Any, blob), "sha256").hexdigest(), sha256)


class Publisher(Protocol):
    """The side of a store that its writers use."""

    def temporary_folder(self) -> Path:
        """Where blobs lie until they are whole."""

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move or send a flushed temporary file to its final place."""


class SpooledWriter:
    """A BlobWriter over a temporary file, hashed on the way; the store names where it ends."""

    def __init__(self, store: Publisher, *, limit: int | None) -> None:
        self._store = store
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        with sentence_when_full():
            descriptor, name = tempfile.mkstemp(prefix="blob-", dir=store.temporary_folder())
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        """Append; TooLarge past the limit, StorageFullError when the disk is full."""
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise TooLarge(f"The file is larger than {size_text(self._limit)}, the most allowed.")
        self._hash.update(chunk)
        with sentence_when_full():
            self._file.write(chunk)

    def commit(self) -> Blob:
        """Store what was written under its hash."""
        blob = Blob(self._hash.hexdigest(), self._size)
        with sentence_when_full():
            self._file.flush()
            self._store.publish(self._file, self._path, blob)
        return blob

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # what is still buffered may not fit on a full disk; it is thrown away in any case
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def checked(sha256: str) -> str:
    """The hash, if it is one in lower-case hexadecimal; nothing else ever becomes a path."""
    if not SHA256.fullmatch(sha256):
        raise BlobNotFound("There is no stored file of this name.")
    return sha256


def not_found(sha256: str) -> BlobNotFound:
    """The error for a blob that is not there."""
    return BlobNotFound(f"The stored file {sha256[:12]}… is missing.")


def check_hash(found: str, expected: str) -> None:
    """Raise BlobDamaged unless what was read is what was stored."""
    if found != expected:
        raise BlobDamaged(
            f"The stored file {expected[:12]}… is damaged: its content has changed. "
            "Restore it from a backup, or upload it again."
        )


@contextlib.contextmanager
def sentence_when_full() -> Iterator[None]:
    """Turn the system's "no space left" into a StorageFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(
                "The disk is full, so this was not stored. Free some space, then try again."
            ) from error
        raise
