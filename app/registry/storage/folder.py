"""Blobs as files on this machine, written durably (fsync before and after the rename)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar

from app.registry.storage.store import (
    MARKER,
    SHA256,
    TRASH,
    Blob,
    BlobStat,
    BlobStore,
    CheckedBlobs,
    StorageUnavailable,
    check_content,
    not_found,
    require_hash,
    translate_full_disk,
    unreadable,
)
from app.registry.temporary import create_file, remove_abandoned

UsedT = TypeVar("UsedT")

PROBE = b"ready?"


class LocalBlobStore(BlobStore):
    """Blobs as files `ab/cd/<sha256>` under a folder of this machine or a shared mount.

    A blob is written to `incoming/` in the same file system, fsynced and renamed, then the folder
    is fsynced: after a power failure the blob is complete or absent.
    """

    is_local = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._checked = CheckedBlobs()
        self._incoming.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self._incoming)

    def temporary_folder(self) -> Path:
        """Folder for blobs that are not complete yet. Raises StorageUnavailable."""
        self._require_folder()
        return self._incoming

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Move a flushed temporary file to its final path, durably."""
        os.fsync(file.fileno())
        if os.name == "nt":  # which only renames closed files
            file.close()
        place = self._blob_path(blob.sha256)
        _make_folders(place)
        temporary.replace(place)
        _fsync_folder(place.parent)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader of checked content. Raises BlobNotFound or BlobDamaged."""
        file = self.open_unchecked(sha256)
        try:
            self._check(file, sha256)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def open_unchecked(self, sha256: str) -> BinaryIO:
        """A seekable reader of content that may be damaged. Raises BlobNotFound."""
        try:
            return self._use(sha256, lambda path: path.open("rb"))
        except OSError as error:
            raise unreadable(sha256, error) from error

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """The stored file itself, checked. Raises BlobNotFound or BlobDamaged."""
        self.checked_stat(sha256)
        return self._blob_path(sha256)

    def checked_stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob whose content was checked. Raises BlobNotFound or BlobDamaged."""
        with self.open_unchecked(sha256) as file:
            return self._check(file, sha256)

    def _check(self, file: BinaryIO, sha256: str) -> BlobStat:
        """Read an opened blob unless its state is known to be good. Raises BlobDamaged."""
        found = _stat_of(sha256, os.fstat(file.fileno()))
        if not self._checked.has(found):
            check_content(file, sha256)
            self._checked.add(found)
        return found

    def stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob. Raises BlobNotFound."""
        return self._use(sha256, _stat)

    def _use(self, sha256: str, read: Callable[[Path], UsedT]) -> UsedT:
        """The result of `read` for a blob, which comes out of the trash if need be."""
        path = self._blob_path(sha256)
        with contextlib.suppress(FileNotFoundError):
            return read(path)
        self.take_back(sha256)
        try:
            return read(path)
        except FileNotFoundError:
            self._require_folder()
            raise not_found(sha256) from None

    def _require_folder(self) -> None:
        """Raise StorageUnavailable without the folder: its disk is away, no blob is missing."""
        if not self._incoming.is_dir():
            raise StorageUnavailable(
                f"The storage folder {self._root} is not there. Check that its disk or network "
                "drive is mounted."
            )

    def delete(self, sha256: str) -> None:
        """Delete the blob at once, also from the trash; a missing one is ignored."""
        self._blob_path(sha256).unlink(missing_ok=True)
        self.delete_from_trash(sha256)

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs but those in the trash, in no particular order."""
        return _list_blobs(self._root, "??/??/*")

    def discard(self, sha256: str, *, before: datetime) -> bool:
        """Move the blob to the trash if it was stored before this time; True if it was moved."""
        path = self._blob_path(sha256)
        (self._root / TRASH).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if _stat(path).modified < before:
                return _move_renewed(path, self._trash_path(sha256))
        return False

    def take_back(self, sha256: str) -> bool:
        """Move a blob out of the trash, as if stored now; False if it is not in the trash."""
        path, discarded = self._blob_path(sha256), self._trash_path(sha256)
        with contextlib.suppress(FileNotFoundError):
            if discarded.exists():
                _make_folders(path)  # which tidying or a copy of the store may have left out
                return _move_renewed(discarded, path)
        return False

    def list_trash(self) -> Iterator[BlobStat]:
        """All blobs in the trash; `modified` is the time they were moved there."""
        return _list_blobs(self._root / TRASH, "*")

    def delete_from_trash(self, sha256: str) -> None:
        """Delete a blob in the trash for good; a missing one is ignored."""
        self._trash_path(sha256).unlink(missing_ok=True)

    def read_marker(self) -> bytes | None:
        """The marker of the store; None if it has none."""
        path = self._root / MARKER
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageUnavailable(
                f"The file {path} cannot be read: {error.strerror}. Check its permissions."
            ) from error

    def write_marker(self, data: bytes) -> None:
        """Replace the marker of the store, whole or not at all."""
        with translate_full_disk():
            descriptor, temporary = create_file(self._incoming, "part-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._root / MARKER)
            finally:
                temporary.unlink(missing_ok=True)
        _fsync_folder(self._root)

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """None, as the web server serves local files itself."""
        require_hash(sha256)
        return None

    def check_readable(self) -> None:
        """Raise StorageUnavailable if the folder cannot be read."""
        try:
            with os.scandir(self._root) as entries:
                next(entries, None)
        except OSError as error:
            raise StorageUnavailable(
                f"The storage folder {self._root} cannot be read: {error.strerror}."
            ) from error

    def check(self) -> None:
        """Raise StorageUnavailable if blobs cannot be written, StorageFullError on a full disk."""
        self.check_readable()
        try:
            write_probe(self._incoming)
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

    def _trash_path(self, sha256: str) -> Path:
        return self._root / TRASH / require_hash(sha256)


def _stat(path: Path) -> BlobStat:
    """Size and age of the blob in this file. Raises FileNotFoundError."""
    return _stat_of(path.name, path.stat())


def _list_blobs(folder: Path, pattern: str) -> Iterator[BlobStat]:
    for path in folder.glob(pattern):
        if SHA256.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # moved or deleted since it was listed
                yield _stat(path)


def _make_folders(place: Path) -> None:
    """Make the two folders of a blob durably, if they are missing."""
    for folder in (place.parent.parent, place.parent):
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            _fsync_folder(folder.parent)


def _move_renewed(source: Path, target: Path) -> bool:
    """Move a file, with the time of the move as its own. Raises FileNotFoundError.

    The time comes first: a crash in between leaves a renewed blob, not one long in the trash.
    """
    os.utime(source)
    source.replace(target)
    return True


def _stat_of(sha256: str, found: os.stat_result) -> BlobStat:
    return BlobStat(sha256, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def write_probe(folder: Path) -> None:
    """Write a few bytes to the disk of a folder, and remove them. Raises StorageFullError."""
    with translate_full_disk(), tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(PROBE)
        os.fsync(probe.fileno())


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
