"""Blobs in an object store (S3, R2, MinIO, GCS, Azure) through obstore."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
import obstore.store
from obstore.exceptions import BaseError

from app.registry.storage.store import (
    CHUNK,
    SHA256,
    Blob,
    BlobNotFound,
    BlobStat,
    BlobStore,
    BlobWriter,
    SpooledWriter,
    StorageUnavailable,
    check_hash,
    not_found,
    require_hash,
    translate_full_disk,
)

RETRIES = 5  # with obstore's exponential backoff
RETRY_TIMEOUT = timedelta(seconds=60)


class ObjectBlobStore(BlobStore):
    """Blobs as objects `blobs/ab/cd/<sha256>` of a bucket.

    `url` is `s3://bucket/prefix`, `gs://…` or `az://…`; obstore reads keys and endpoint from the
    environment (AWS_ENDPOINT, AWS_ACCESS_KEY_ID …). `memory://` lives as long as this object.
    """

    def __init__(self, url: str, *, scratch: Path | None = None, retries: int = RETRIES) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._scratch.mkdir(parents=True, exist_ok=True)
        retry = {"max_retries": retries, "retry_timeout": RETRY_TIMEOUT}
        try:
            self._bucket: Any = obstore.store.from_url(
                url, **({} if url.startswith("memory:") else {"retry_config": retry})
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
            self._bucket.put(_object_key(blob.sha256), temporary)

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """A writer for a new blob of at most `limit` bytes."""
        return SpooledWriter(self, limit=limit)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader that fetches ranges. Raises BlobNotFound."""
        with _translate_errors(sha256):
            reader = obstore.open_reader(self._bucket, _object_key(sha256))
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
        with _translate_errors(sha256):
            found = self._bucket.head(_object_key(sha256))
        return BlobStat(sha256, found["size"], found["last_modified"])

    def exists(self, sha256: str) -> bool:
        """True if the blob is stored."""
        try:
            self.stat(sha256)
        except BlobNotFound:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """Delete the blob; a missing one is ignored."""
        key = _object_key(sha256)
        with contextlib.suppress(BlobNotFound), _translate_errors(sha256):
            self._bucket.delete(key)

    def list(self) -> Iterator[BlobStat]:
        """All stored blobs, in no particular order."""
        with _translate_errors():
            for batch in self._bucket.list("blobs"):
                for found in batch:
                    name = found["path"].rsplit("/", 1)[-1]
                    if SHA256.fullmatch(name):
                        yield BlobStat(name, found["size"], found["last_modified"])

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A presigned URL; None for `memory://`."""
        key = _object_key(sha256)
        if isinstance(self._bucket, obstore.store.MemoryStore):
            return None
        with _translate_errors():
            return str(obstore.sign(self._bucket, "GET", key, expires))

    def check(self) -> None:
        """Raise StorageUnavailable if the bucket does not answer."""
        with _translate_errors():
            next(iter(self._bucket.list("blobs", chunk_size=1)), None)

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


def _object_key(sha256: str) -> str:
    name = require_hash(sha256)
    return f"blobs/{name[:2]}/{name[2:4]}/{name}"


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
    """Translate obstore's errors; a missing object becomes BlobNotFound."""
    try:
        yield
    except FileNotFoundError:
        if sha256 is None:
            raise
        raise not_found(sha256) from None
    except BaseError as error:
        raise StorageUnavailable(
            f"The object store reported an error: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
