"""Blobs in an object store (S3, R2, MinIO, GCS, Azure) through obstore."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import obstore
import obstore.store
from obstore.exceptions import BaseError

from app.registry.storage.store import (
    CHUNK,
    MARKER,
    SHA256,
    TRASH,
    Blob,
    BlobNotFound,
    BlobStat,
    BlobStore,
    CheckedBlobs,
    StorageUnavailable,
    check_content,
    check_hash,
    not_found,
    require_hash,
    translate_full_disk,
    verify,
)

UsedT = TypeVar("UsedT")
COPY_LIMIT = 5 << 30  # bytes; S3 copies no larger object in one request
COPY_CHUNK = 16 << 20
RETRIES = 5  # with obstore's exponential backoff
RETRY_TIMEOUT = timedelta(seconds=20)
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=30)  # of one request; large files are sent in parts
PARTS_AT_ONCE = 4  # so that each is sent in time on a slow line
CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "proxy_ca_certificate",
    "proxy_url",
    "timeout",
)
"""Options of obstore's client that the environment may set: `AWS_ALLOW_HTTP`, `AWS_TIMEOUT` …"""
CLOUDS = ("AWS", "GOOGLE", "AZURE")

PROBE = "ready"  # name of an object that is written and deleted


class ObjectBlobStore(BlobStore):
    """Blobs as objects `blobs/ab/cd/<sha256>` of a bucket.

    `url` is `s3://bucket/prefix`, `gs://…` or `az://…`; obstore reads keys and endpoint from the
    environment (AWS_ENDPOINT, AWS_ACCESS_KEY_ID …). `memory://` lives as long as this object.
    A store that accepts a request and never answers raises StorageUnavailable after its timeout.
    """

    is_local = False

    def __init__(
        self,
        url: str,
        *,
        scratch: Path | None = None,
        retries: int = RETRIES,
        request_timeout: timedelta = REQUEST_TIMEOUT,
    ) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._checked = CheckedBlobs()
        retry = {"max_retries": retries, "retry_timeout": RETRY_TIMEOUT}
        try:
            options = {"client_options": _client_options(request_timeout), "retry_config": retry}
            self._bucket: Any = obstore.store.from_url(
                url, **({} if url.startswith("memory:") else options)
            )
        except Exception as error:
            raise StorageUnavailable(
                f"The storage URL {url} cannot be used. Check BRUSHWORK_STORAGE_URL: "
                f"{_first_line(error)}"
            ) from error

    def temporary_folder(self) -> Path:
        """Folder for blobs that are not complete yet."""
        return self._scratch

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Upload a flushed temporary file; the object appears complete or not at all."""
        with _translate_errors():
            self._bucket.put(_object_key(blob.sha256), temporary, max_concurrency=PARTS_AT_ONCE)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader of checked content. Raises BlobNotFound or BlobDamaged.

        A small blob is fetched once, with its check.
        """
        found = self.stat(sha256)
        if found.size <= CHUNK and not self._checked.has(found):
            with _translate_errors(sha256):
                content = io.BytesIO(bytes(self._bucket.get(_object_key(sha256)).bytes()))
            check_content(content, sha256)
            self._checked.add(found)
            content.seek(0)
            return content
        self._check(found)
        return self.open_unchecked(sha256)

    def checked_stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob whose content was checked. Raises BlobNotFound or BlobDamaged."""
        found = self.stat(sha256)
        self._check(found)
        return found

    def _check(self, found: BlobStat) -> None:
        """Read a blob unless its state is known to be good. Raises BlobDamaged."""
        if not self._checked.has(found):
            verify(self, found.sha256)
            self._checked.add(found)

    def open_unchecked(self, sha256: str) -> BinaryIO:
        """A seekable reader that fetches ranges. Raises BlobNotFound."""
        reader = self._use(sha256, lambda key: obstore.open_reader(self._bucket, key))
        return cast(BinaryIO, io.BufferedReader(_ObjectReader(reader), CHUNK))

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """A copy in `scratch`, downloaded once and verified by its hash."""
        stat = self.stat(sha256)
        target = scratch / sha256
        if target.is_file() and target.stat().st_size == stat.size:
            return target
        scratch.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with translate_full_disk(), _temporary_beside(target) as (file, temporary):
            with _translate_errors(sha256):
                for chunk in self._bucket.get(_object_key(sha256)).stream(min_chunk_size=CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            check_hash(digest.hexdigest(), sha256)
            file.close()
            temporary.replace(target)
        return target

    def stat(self, sha256: str) -> BlobStat:
        """Size and age of a blob. Raises BlobNotFound."""
        return self._use(sha256, lambda key: _stat(self._bucket.head(key)))

    def _use(self, sha256: str, read: Callable[[str], UsedT]) -> UsedT:
        """The result of `read` for a blob, which comes out of the trash if need be."""
        key = _object_key(sha256)
        with contextlib.suppress(BlobNotFound), _translate_errors(sha256):
            return read(key)
        self.take_back(sha256)
        with _translate_errors(sha256):
            return read(key)

    def delete(self, sha256: str) -> None:
        """Delete the blob at once, also from the trash; a missing one is ignored."""
        self._delete(_object_key(sha256))
        self.delete_from_trash(sha256)

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs but those in the trash, in no particular order."""
        return (blob for key, blob in self._list("blobs") if key == _object_key(blob.sha256))

    def discard(self, sha256: str, *, before: datetime) -> bool:
        """Move the blob to the trash if it was stored before this time; True if it was moved."""
        return self._move(_object_key(sha256), _trash_key(sha256), before=before)

    def take_back(self, sha256: str) -> bool:
        """Move a blob out of the trash, as if stored now; False if it is not in the trash."""
        return self._move(_trash_key(sha256), _object_key(sha256))

    def list_trash(self) -> Iterator[BlobStat]:
        """All blobs in the trash; `modified` is the time they were moved there."""
        return (blob for _, blob in self._list(f"blobs/{TRASH}"))

    def delete_from_trash(self, sha256: str) -> None:
        """Delete a blob in the trash for good; a missing one is ignored."""
        self._delete(_trash_key(sha256))

    def read_marker(self) -> bytes | None:
        """The marker of the store; None if it has none."""
        with contextlib.suppress(FileNotFoundError), _translate_errors():
            return bytes(self._bucket.get(f"blobs/{MARKER}").bytes())
        return None

    def write_marker(self, data: bytes) -> None:
        """Replace the marker of the store, whole or not at all."""
        with _translate_errors():
            self._bucket.put(f"blobs/{MARKER}", data)

    def _list(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """(key, blob) of all objects below `prefix` whose names are hashes."""
        with _translate_errors():
            for batch in self._bucket.list(prefix):
                for found in batch:
                    stat = _stat(found)
                    if SHA256.fullmatch(stat.sha256):
                        yield found["path"], stat

    def _delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), _translate_errors():
            self._bucket.delete(key)

    def _move(self, source: str, target: str, *, before: datetime | None = None) -> bool:
        """Copy an object, then delete it; False if it is missing or not from `before` this time."""
        try:
            with _translate_errors():
                found = _stat(self._bucket.head(source))
                if before is not None and found.modified >= before:
                    return False
                if found.size > COPY_LIMIT:
                    self._copy_in_parts(source, target)
                else:
                    self._bucket.copy(source, target)
        except FileNotFoundError:
            return False
        self._delete(source)
        return True

    def _copy_in_parts(self, source: str, target: str) -> None:
        """Copy an object of any size; the copy appears when all of it was written."""
        writer = obstore.open_writer(self._bucket, target, buffer_size=COPY_CHUNK)
        for chunk in self._bucket.get(source).stream(min_chunk_size=COPY_CHUNK):
            writer.write(chunk)
        writer.close()

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A presigned URL; None for `memory://`."""
        key = _object_key(sha256)
        if isinstance(self._bucket, obstore.store.MemoryStore):
            return None
        with _translate_errors():
            return str(obstore.sign(self._bucket, "GET", key, expires))

    def check_readable(self) -> None:
        """Raise StorageUnavailable if the bucket does not answer."""
        with _translate_errors():
            next(iter(self._bucket.list("blobs", chunk_size=1)), None)

    def check(self) -> None:
        """Raise StorageUnavailable if the bucket cannot be read and written."""
        self.check_readable()
        with _translate_errors():
            self._bucket.put(PROBE, PROBE.encode())
            self._bucket.delete(PROBE)

    def free_bytes(self) -> int | None:
        """None, as buckets do not report free space."""
        return None


class _ObjectReader(io.RawIOBase):
    """An obstore reader as a standard raw stream."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        with _translate_errors():
            chunk = self._reader.read(len(buffer))
        size = len(chunk)
        buffer[:size] = memoryview(chunk)
        return size


def _client_options(request_timeout: timedelta) -> dict[str, Any]:
    """Time limits, and what the environment says: obstore takes it from one place only."""
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "timeout": request_timeout}
    for name in CLIENT_OPTIONS:
        for cloud in CLOUDS:
            if value := os.environ.get(f"{cloud}_{name.upper()}"):
                options[name] = value
    return options


def _object_key(sha256: str) -> str:
    name = require_hash(sha256)
    return f"blobs/{name[:2]}/{name[2:4]}/{name}"


def _trash_key(sha256: str) -> str:
    return f"blobs/{TRASH}/{require_hash(sha256)}"


def _stat(found: Any) -> BlobStat:
    """Name, size and age of an object."""
    return BlobStat(found["path"].rsplit("/", 1)[-1], found["size"], found["last_modified"])


@contextlib.contextmanager
def _temporary_beside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    descriptor, name = tempfile.mkstemp(prefix="fetch-", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _translate_errors(sha256: str | None = None) -> Iterator[None]:
    """Translate obstore's errors; a missing object becomes BlobNotFound.

    Of a connection that broke in an answer, obstore makes an OSError without a number.
    """
    try:
        yield
    except FileNotFoundError:
        if sha256 is None:
            raise
        raise not_found(sha256) from None
    except (BaseError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StorageUnavailable(
            f"The object store reported an error: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
