"""Blobs as files of this machine, durable: fsync before and after the rename."""

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
    checked,
    not_found,
)

TEMPORARY_LIFE = timedelta(hours=24)


class LocalBlobStore(BlobStore):
    """Blobs as files `ab/cd/<sha256>` under a folder of this machine (or a shared mount).

    A blob is written to `incoming/` in the same file system, fsynced, renamed, and the folder
    fsynced: after a power cut there is the whole blob or none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what interrupted uploads left more than a day ago."""
        oldest = time.time() - TEMPORARY_LIFE.total_seconds()
        for left in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                if left.stat().st_mtime < oldest:
                    left.unlink()

    def temporary_folder(self) -> Path:
        """Where blobs lie until they are whole."""
        return self._incoming

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move a flushed temporary file to its place, durably."""
        os.fsync(file.fileno())
        file.close()  # Windows moves closed files only
        place = self._place(blob.sha256)
        for folder in (place.parent.parent, place.parent):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                _fsync_folder(folder.parent)
        temporary.chmod(0o644)
        temporary.replace(place)
        _fsync_folder(place.parent)

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """Store bytes as they come, at most `limit` of them."""
        return SpooledWriter(self, limit=limit)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader; BlobNotFound when there is none."""
        try:
            return self._place(sha256).open("rb")
        except FileNotFoundError:
            raise not_found(sha256) from None

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The stored file itself."""
        self.stat(sha256)
        return self._place(sha256)

    def stat(self, sha256: str) -> BlobStat:
        """Size and age; BlobNotFound when there is none."""
        try:
            found = self._place(sha256).stat()
        except FileNotFoundError:
            raise not_found(sha256) from None
        return BlobStat(sha256, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def exists(self, sha256: str) -> bool:
        """Whether the blob is stored."""
        return SHA256.fullmatch(sha256) is not None and self._place(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Take the blob away; none there is no error."""
        self._place(sha256).unlink(missing_ok=True)

    def list(self) -> Iterator[BlobStat]:
        """Every stored blob, in no particular order."""
        for path in self._root.glob("??/??/*"):
            if SHA256.fullmatch(path.name):
                with contextlib.suppress(BlobNotFound):  # deleted since it was listed
                    yield self.stat(path.name)

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """None: files of this machine are served by the app."""
        checked(sha256)
        return None

    def check(self) -> None:
        """Return when a blob could be written now."""
        try:
            with self.writer() as probe:
                probe.write(b"ready?")
        except OSError as error:
            raise StorageUnavailable(
                f"The storage folder {self._root} cannot be written: {error.strerror}."
            ) from error

    def free_bytes(self) -> int | None:
        """Room left in the file system of the folder."""
        return shutil.disk_usage(self._root).free

    def _place(self, sha256: str) -> Path:
        name = checked(sha256)
        return self._root / name[:2] / name[2:4] / name


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
