"""Blobs as files on this machine, written durably (fsync before and after the rename)."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from app.registry.storage.store import (
    SHA256,
    Blob,
    BlobNotFound,
    BlobStat,
    BlobStore,
    BlobWriter,
    SpooledWriter,
    StorageUnavailable,
    not_found,
    require_hash,
)

TEMPORARY_LIFE = timedelta(hours=24)


class LocalBlobStore(BlobStore):
    """Blobs as files `ab/cd/<sha256>` under a folder of this machine or a shared mount.

    A blob is written to `incoming/` in the same file system, fsynced and renamed, then the folder
    is fsynced: after a power failure the blob is complete or absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._remove_old_uploads()

    def _remove_old_uploads(self) -> None:
        """Remove files of interrupted uploads that are more than a day old."""
        oldest = time.time() - TEMPORARY_LIFE.total_seconds()
        for left in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process may remove it too
                if left.stat().st_mtime < oldest:
                    left.unlink()

    def temporary_folder(self) -> Path:
        """Folder for blobs that are not complete yet."""
        return self._incoming

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move a flushed temporary file to its final path, durably."""
        os.fsync(file.fileno())
        file.close()  # Windows only renames closed files
        place = self._blob_path(blob.sha256)
        for folder in (place.parent.parent, place.parent):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                _fsync_folder(folder.parent)
        temporary.chmod(0o644)
        temporary.replace(place)
        _fsync_folder(place.parent)

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """A writer for a new blob of at most `limit` bytes."""
        return SpooledWriter(self, limit=limit)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader. Raises BlobNotFound."""
        try:
            return self._blob_path(sha256).open("rb")
        except FileNotFoundError:
            raise not_found(sha256) from None

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The stored file itself."""
        self.stat(sha256)
        return self._blob_path(sha256)

    def stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob. Raises BlobNotFound."""
        try:
            found = self._blob_path(sha256).stat()
        except FileNotFoundError:
            raise not_found(sha256) from None
        return BlobStat(sha256, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def exists(self, sha256: str) -> bool:
        """True if the blob is stored."""
        return SHA256.fullmatch(sha256) is not None and self._blob_path(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Delete the blob; a missing one is ignored."""
        self._blob_path(sha256).unlink(missing_ok=True)

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs, in no particular order."""
        for path in self._root.glob("??/??/*"):
            if SHA256.fullmatch(path.name):
                with contextlib.suppress(BlobNotFound):  # deleted since it was listed
                    yield self.stat(path.name)

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """None, as the web server serves local files itself."""
        require_hash(sha256)
        return None

    def check(self) -> None:
        """Raise StorageUnavailable if blobs cannot be written."""
        try:
            with self.writer() as probe:
                probe.write(b"ready?")
        except OSError as error:
            raise StorageUnavailable(
                f"The storage folder {self._root} cannot be written: {error.strerror}. Check its "
                "permissions."
            ) from error

    def free_bytes(self) -> int | None:
        """Free space in the file system of the folder."""
        return shutil.disk_usage(self._root).free

    def _blob_path(self, sha256: str) -> Path:
        name = require_hash(sha256)
        return self._root / name[:2] / name[2:4] / name


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
