"""Blobs in an object store: S3, R2, MinIO, GCS, Azure, through obstore."""

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
    checked,
    not_found,
    sentence_when_full,
)

RETRIES = 5  # with obstore's exponential pauses
RETRY_TIMEOUT = timedelta(seconds=60)


class ObjectBlobStore(BlobStore):
    """Blobs as objects `blobs/ab/cd/<sha256>` of a bucket; keys and endpoint by environment.

    `url` is `s3://bucket/prefix`, `gs://…` or `az://…` with the variables that obstore reads
    (AWS_ENDPOINT, AWS_ACCESS_KEY_ID …), or `memory://`, which lives as long as this object.
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
                f"The storage address {url} cannot be used: {_first_line(error)}"
            ) from error

    def temporary_folder(self) -> Path:
        """Where blobs lie until they are whole."""
        return self._scratch

    def publish(self, file: BinaryIO, temporary: Path, blob: Blob) -> None:
        """Send a flushed temporary file; the object appears whole or not at all."""
        with _reachable():
            self._bucket.put(_key(blob.sha256), temporary)

    def writer(self, *, limit: int | None = None) -> BlobWriter:
        """Store bytes as they come, at most `limit` of them."""
        return SpooledWriter(self, limit=limit)

    def open(self, sha256: str) -> BinaryIO:
        """A seekable reader that fetches ranges; BlobNotFound when there is none."""
        with _reachable(sha256):
            reader = obstore.open_reader(self._bucket, _key(sha256))
        return cast(BinaryIO, io.BufferedReader(_ObjectReader(reader), CHUNK))

    def local_path(self, sha256: str, scratch: Path) -> Path:
        """A copy in `scratch`, fetched once, with its hash checked."""
        stat = self.stat(sha256)
        target = scratch / sha256
        if target.is_file() and target.stat().st_size == stat.size:
            return target
        scratch.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with sentence_when_full(), _temporary_beside(target) as (file, temporary):
            with _reachable(sha256):
                for chunk in self._bucket.get(_key(sha256)).stream(min_chunk_size=CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            check_hash(digest.hexdigest(), sha256)
            file.close()
            temporary.replace(target)
        return target

    def stat(self, sha256: str) -> BlobStat:
        """Size and age; BlobNotFound when there is none."""
        with _reachable(sha256):
            found = self._bucket.head(_key(sha256))
        return BlobStat(sha256, found["size"], found["last_modified"])

    def exists(self, sha256: str) -> bool:
        """Whether the blob is stored."""
        try:
            self.stat(sha256)
        except BlobNotFound:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """Take the blob away; none there is no error."""
        key = _key(sha256)
        with contextlib.suppress(BlobNotFound), _reachable(sha256):
            self._bucket.delete(key)

    def list(self) -> Iterator[BlobStat]:
        """Every stored blob, in no particular order."""
        with _reachable():
            for batch in self._bucket.list("blobs"):
                for found in batch:
                    name = found["path"].rsplit("/", 1)[-1]
                    if SHA256.fullmatch(name):
                        yield BlobStat(name, found["size"], found["last_modified"])

    def url(self, sha256: str, expires: timedelta) -> str | None:
        """A presigned address; None for `memory://`."""
        key = _key(sha256)
        if isinstance(self._bucket, obstore.store.MemoryStore):
            return None
        with _reachable():
            return str(obstore.sign(self._bucket, "GET", key, expires))

    def check(self) -> None:
        """Return when the bucket answers."""
        with _reachable():
            next(iter(self._bucket.list("blobs", chunk_size=1)), None)

    def free_bytes(self) -> int | None:
        """None: a bucket does not say."""
        return None


class _ObjectReader(io.RawIOBase):
    """obstore's reader as a standard raw stream."""

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
        with _reachable():
            chunk = self._reader.read(len(buffer))
        size = len(chunk)
        buffer[:size] = memoryview(chunk)
        return size


def _key(sha256: str) -> str:
    name = checked(sha256)
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
def _reachable(sha256: str | None = None) -> Iterator[None]:
    """Turn obstore's errors into ours; a missing object into BlobNotFound."""
    try:
        yield
    except FileNotFoundError:
        if sha256 is None:
            raise
        raise not_found(sha256) from None
    except BaseError as error:
        raise StorageUnavailable(
            f"The object store did not do what was asked: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
