"""The trash and the marker of a store: in a folder and in a bucket."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.registry.errors import StorageFullError
from app.registry.storage import bucket, open_store
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobNotFound, BlobStore, StorageUnavailable

ABSENT = "0" * 64


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_store("memory://" if request.param == "bucket" else None, tmp_path / "data")


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def test_what_is_discarded_lies_in_the_trash_and_not_among_the_blobs(store: BlobStore) -> None:
    kept, lost = store.put_bytes(b"kept").sha256, store.put_bytes(b"lost").sha256

    assert store.discard(lost, before=soon())

    assert [blob.sha256 for blob in store.list()] == [kept]
    (found,) = store.list_trash()
    assert (found.sha256, found.size) == (lost, 4)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=5)


def test_what_was_stored_again_meanwhile_is_not_discarded(store: BlobStore) -> None:
    sha256 = store.put_bytes(b"x").sha256

    assert not store.discard(sha256, before=datetime.now(UTC) - timedelta(hours=1))
    assert not store.discard(ABSENT, before=soon())

    assert store.exists(sha256)
    assert list(store.list_trash()) == []


@pytest.mark.parametrize("use", ["open", "stat", "exists", "local_path", "take_back"])
def test_what_is_used_comes_back_out_of_the_trash(
    store: BlobStore, use: str, tmp_path: Path
) -> None:
    sha256 = store.put_bytes(b"needed again").sha256
    store.discard(sha256, before=soon())

    if use == "open":
        with store.open(sha256) as stored:
            assert stored.read() == b"needed again"
    elif use == "local_path":
        assert store.local_path(sha256, tmp_path / "scratch").read_bytes() == b"needed again"
    else:
        assert getattr(store, use)(sha256)

    assert [blob.sha256 for blob in store.list()] == [sha256]
    assert list(store.list_trash()) == []
    assert not store.take_back(sha256)


def test_what_comes_back_is_as_young_as_what_was_just_stored(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    sha256 = store.put_bytes(b"x").sha256
    os.utime(store.local_path(sha256, tmp_path), (7, 7))
    store.discard(sha256, before=soon())
    os.utime(tmp_path / "trash" / sha256, (7, 7))

    assert store.stat(sha256).modified.year > 2000


def test_what_is_needed_comes_back_though_its_folder_was_removed(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    sha256 = store.put_bytes(b"needed again").sha256
    store.discard(sha256, before=soon())
    (tmp_path / sha256[:2] / sha256[2:4]).rmdir()
    (tmp_path / sha256[:2]).rmdir()

    with store.open(sha256) as stored:
        assert stored.read() == b"needed again"
    assert not store.exists(ABSENT)
    assert not (tmp_path / ABSENT[:2]).exists()


def test_deleting_takes_a_blob_out_of_the_trash_too(store: BlobStore) -> None:
    sha256 = store.put_bytes(b"private").sha256
    store.discard(sha256, before=soon())

    store.delete(sha256)

    assert not store.exists(sha256)
    assert list(store.list_trash()) == []


def test_blobs_deleted_from_the_trash_cannot_be_restored(store: BlobStore) -> None:
    sha256 = store.put_bytes(b"x").sha256
    store.discard(sha256, before=soon())

    store.delete_from_trash(sha256)
    store.delete_from_trash(sha256)

    with pytest.raises(BlobNotFound, match="is missing"):
        store.open(sha256)


@pytest.mark.parametrize("name", ["", "..", "../registry.json", "A" * 64])
def test_what_is_no_hash_never_becomes_a_path(store: BlobStore, name: str) -> None:
    store.write_marker(b"kept")
    for call in (
        lambda: store.discard(name, before=soon()),
        lambda: store.take_back(name),
        lambda: store.delete_from_trash(name),
    ):
        with pytest.raises(BlobNotFound, match="no stored file with this name"):
            call()
    assert store.read_marker() == b"kept"


def test_objects_too_large_for_one_copy_go_and_come_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "COPY_LIMIT", 1)
    store = bucket.ObjectBlobStore("memory://", scratch=tmp_path)
    data = bytes(range(256)) * 5_000
    sha256 = store.put_bytes(data).sha256

    assert store.discard(sha256, before=soon())
    assert [blob.size for blob in store.list_trash()] == [len(data)]
    with store.open(sha256) as stored:
        assert hashlib.sha256(stored.read()).hexdigest() == sha256


def test_the_marker_is_none_then_what_was_written_last(store: BlobStore) -> None:
    assert store.read_marker() is None
    store.write_marker(b"first, and longer")
    store.write_marker(b"second")

    assert store.read_marker() == b"second"
    assert list(store.list()) == []


def test_a_marker_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    (tmp_path / "registry.json").mkdir()
    with pytest.raises(StorageUnavailable, match=r"registry\.json cannot be read: .*permissions"):
        store.read_marker()


def test_a_marker_that_does_not_fit_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalBlobStore(tmp_path)
    store.write_marker(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        store.write_marker(b"new")

    assert store.read_marker() == b"old"
    assert list((tmp_path / "incoming").iterdir()) == []
