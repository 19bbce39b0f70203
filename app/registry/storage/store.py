"""Protocol of blob stores, which name files by the SHA-256 of their content.

There are two implementations: a folder, and an object store (S3, R2, MinIO, GCS, Azure through
obstore). Callers store the blob before the row that refers to it, and delete the row before the
blob. Storing the same bytes again renews the blob's time, so a sweep of old unreferenced blobs
never deletes one that was just uploaded again.

What a sweep takes goes to a trash in the same store. Reading a blob that lies there brings it back.
Beside the blobs lies a marker, which says which database they belong to (`blobs.ownership`).
Blobs, trash and marker have the same names in a folder and in a bucket, so a copy of one serves as
the other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from app.registry.errors import AppError, NotFound, StorageFullError, TooLarge
from app.registry.temporary import create_file
from worker.core.wording import size_text

CHUNK = 1 << 20  # bytes read at a time
SHA256 = re.compile(r"[0-9a-f]{64}")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_FULL = "The disk is full, so nothing was stored. Free some space, then try again."
TRASH = "trash"  # folder of the blobs that a sweep took, beside the others
MARKER = "registry.json"
# a bad sector, a damaged file system, permissions
BAD_FILE = frozenset({errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO), errno.EACCES})
COARSE_SECONDS = 2.0  # the coarsest time stamps of common file systems
MAX_REMEMBERED = 200_000  # checked blobs, about 40 MB


class BlobNotFound(NotFound, code="blob_not_found"):
    """No blob with this hash is stored; `sha256` is empty if the name is not a hash."""

    sha256 = ""


class BlobDamaged(AppError, status=500, title="A stored file is damaged", code="blob_damaged"):
    """The stored bytes cannot be read, or no longer have the hash they were stored under."""

    sha256 = ""


UnusableBlob = BlobNotFound | BlobDamaged


class StorageUnavailable(
    AppError, status=503, title="Storage does not answer", code="storage_unavailable"
):
    """The object store failed or did not answer."""


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


class BlobStore(Protocol):
    """Content-addressed files. Names that are not hashes raise BlobNotFound.

    What `open`, `local_path` and `checked_stat` give has the right content: a blob is read and
    hashed before its first use in this process, and again once it has changed (`CheckedBlobs`).
    """

    is_local: bool
    """True if the blobs are files of this machine or its mounts, which are cheap to read."""

    def temporary_folder(self) -> Path:
        """Folder of this machine for blobs that are not complete yet."""

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move or upload a flushed temporary file; the blob appears complete or not at all."""

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """A writer for a new blob of at most `limit` bytes. Raises StorageUnavailable."""
        return BlobWriter(self, limit=limit)

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
        """A seekable reader of checked content. Raises BlobNotFound or BlobDamaged."""

    def open_unchecked(self, sha256: str) -> BinaryIO:
        """A seekable reader of content that may be damaged. Raises BlobNotFound."""

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The blob as a checked read-only file: the stored one or a copy in `scratch`.

        Raises BlobNotFound or BlobDamaged.
        """

    def checked_stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob whose content was checked. Raises BlobNotFound or BlobDamaged."""

    def stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob. Raises BlobNotFound."""

    def exists(self, sha256: str) -> bool:
        """True if the blob is stored."""
        try:
            self.stat(sha256)
        except BlobNotFound:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """Delete the blob at once, also from the trash; a missing one is ignored."""

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs but those in the trash, in no particular order."""

    def discard(self, sha256: str, *, before: datetime) -> bool:
        """Move the blob to the trash if it was stored before this time; True if it was moved."""

    def take_back(self, sha256: str) -> bool:
        """Move a blob out of the trash, as if stored now; False if it is not in the trash."""

    def list_trash(self) -> Iterator[BlobStat]:
        """All blobs in the trash; `modified` is the time they were moved there."""

    def delete_from_trash(self, sha256: str) -> None:
        """Delete a blob in the trash for good; a missing one is ignored."""

    def read_marker(self) -> bytes | None:
        """The marker of the store; None if it has none."""

    def write_marker(self, data: bytes) -> None:
        """Replace the marker of the store, whole or not at all."""

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A signed URL that browsers may fetch directly, if the store supports that."""

    def check_readable(self) -> None:
        """Raise StorageUnavailable if blobs cannot be read."""

    def check(self) -> None:
        """Raise StorageUnavailable or StorageFullError if blobs cannot be read and written."""

    def free_bytes(self) -> int | None:
        """Free space, if known."""


class BlobWriter:
    """Hashes into a temporary file, which is stored by `commit` in the `with` block, else dropped.

    Raises StorageUnavailable.
    """

    def __init__(self, store: BlobStore, *, limit: int | None) -> None:
        self._store = store
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        with translate_full_disk():
            descriptor, self._path = create_file(store.temporary_folder(), "part-")
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


def blob_chunks(store: BlobStore, sha256: str) -> Iterator[bytes]:
    """The checked content of a blob. Raises BlobNotFound or BlobDamaged before the first chunk."""
    with store.open(sha256) as blob:
        while chunk := blob.read(CHUNK):
            yield chunk


def verify(
    store: BlobStore, sha256: str, *, on_chunk: Callable[[int], None] = lambda size: None
) -> None:
    """Read the whole blob, even if it was checked before. Raises BlobNotFound or BlobDamaged.

    `on_chunk` is called with the size of each chunk, and may raise to stop.
    """
    with store.open_unchecked(sha256) as blob:
        check_content(blob, sha256, on_chunk=on_chunk)


def check_content(
    content: BinaryIO, sha256: str, *, on_chunk: Callable[[int], None] = lambda size: None
) -> None:
    """Read this content to its end. Raises BlobDamaged if it cannot be read or is another."""
    digest = hashlib.sha256()
    while chunk := _read_chunk(content, sha256):
        digest.update(chunk)
        on_chunk(len(chunk))
    check_hash(digest.hexdigest(), sha256)


def _read_chunk(content: BinaryIO, sha256: str) -> bytes:
    try:
        return content.read(CHUNK)
    except OSError as error:
        raise unreadable(sha256, error) from error


class CheckedBlobs:
    """The blobs that were found undamaged in this process, with the state they had then.

    A blob that changed within the last seconds is not remembered: a change at the same time would
    go unnoticed, because clocks of file systems are coarse.
    """

    def __init__(self) -> None:
        self._states: dict[str, BlobStat] = {}

    def has(self, found: BlobStat) -> bool:
        """True if the blob was undamaged in this state."""
        return self._states.get(found.sha256) == found

    def add(self, found: BlobStat) -> None:
        """Remember an undamaged blob."""
        if abs(time.time() - found.modified.timestamp()) < COARSE_SECONDS:
            return
        if len(self._states) >= MAX_REMEMBERED:
            self._states.clear()
        self._states[found.sha256] = found


def require_hash(sha256: str) -> str:
    """Return the hash if it is valid, in lower-case hexadecimal. Raises BlobNotFound."""
    if not SHA256.fullmatch(sha256):
        raise BlobNotFound("There is no stored file with this name.")
    return sha256


def not_found(sha256: str) -> BlobNotFound:
    """The error for a missing blob."""
    error = BlobNotFound(
        f"The stored file {sha256[:12]}… is missing. Restore it from a backup, or upload it again."
    )
    error.sha256 = sha256
    return error


def damaged(sha256: str, reason: str) -> BlobDamaged:
    """The error for a damaged blob."""
    error = BlobDamaged(
        f"The stored file {sha256[:12]}… is damaged: {reason}. "
        "Restore it from a backup, or upload it again."
    )
    error.sha256 = sha256
    return error


def unreadable(sha256: str, error: OSError) -> BlobDamaged | OSError:
    """The error for a file that cannot be read: BlobDamaged if the file is the reason."""
    if error.errno not in BAD_FILE:
        return error
    return damaged(sha256, f"it cannot be read ({error.strerror})")


def check_hash(found: str, expected: str) -> None:
    """Raise BlobDamaged if the hashes differ."""
    if found != expected:
        raise damaged(expected, "its content has changed")


@contextlib.contextmanager
def translate_full_disk() -> Iterator[None]:
    """Turn the system's "no space left" error into StorageFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(DISK_FULL) from error
        raise
