import contextlib
import errno
import hashlib
import os
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.registry.errors import StorageFullError, TooLarge
from app.registry.storage import open_store
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import (
    BlobDamaged,
    BlobNotFound,
    BlobStore,
    StorageUnavailable,
    verify,
)

DATA = bytes(range(256)) * 9_000  # 2.3 MB: more than one chunk
SHA = hashlib.sha256(DATA).hexdigest()
ABSENT = "0" * 64


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_store("memory://" if request.param == "bucket" else None, tmp_path / "data")


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_it_gives_back_the_bytes_under_their_hash(store: BlobStore) -> None:
    blob = store.put_bytes(DATA)

    assert (blob.sha256, blob.size) == (SHA, len(DATA))
    with store.open(SHA) as stored:
        assert stored.read() == DATA
        stored.seek(256)
        assert stored.read(3) == b"\0\1\2"
    assert store.exists(SHA)
    assert not store.exists(ABSENT)
    verify(store, SHA)


def test_it_stores_a_copy_of_a_file(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)

    assert store.put_file(source).sha256 == SHA
    assert source.read_bytes() == DATA


def test_it_tells_size_and_age(store: BlobStore) -> None:
    store.put_bytes(b"x")
    other = store.put_bytes(DATA)

    stat = store.stat(other.sha256)
    assert stat.size == len(DATA)
    assert abs(datetime.now(UTC) - stat.modified) < timedelta(minutes=5)
    assert sorted(found.size for found in store.list()) == [1, len(DATA)]


def test_deleting_takes_the_blob_away_and_is_no_error_twice(store: BlobStore) -> None:
    store.put_bytes(DATA)
    store.delete(SHA)
    store.delete(SHA)

    assert not store.exists(SHA)
    assert list(store.list()) == []


def test_a_missing_blob_is_a_404_with_a_sentence(store: BlobStore, tmp_path: Path) -> None:
    for call in (
        lambda: store.open(ABSENT),
        lambda: store.stat(ABSENT),
        lambda: store.local_path(ABSENT, tmp_path),
    ):
        with pytest.raises(BlobNotFound, match="is missing") as caught:
            call()
        assert caught.value.status == 404


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "..", SHA.upper(), SHA + "\n", SHA[:-1], f"{SHA}/..", "\0" * 64],
)
def test_what_is_no_hash_never_becomes_a_path(store: BlobStore, name: str, tmp_path: Path) -> None:
    assert not store.exists(name)
    for call in (
        lambda: store.open(name),
        lambda: store.stat(name),
        lambda: store.delete(name),
        lambda: store.url(name, timedelta(minutes=1)),
        lambda: store.local_path(name, tmp_path),
    ):
        with pytest.raises(BlobNotFound, match="no stored file with this name"):
            call()


def test_a_writer_without_commit_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    with store.writer() as writer:
        writer.write(DATA)

    assert files(tmp_path) == []
    assert list(store.list()) == []


def test_a_writer_stops_at_its_limit(store: BlobStore, tmp_path: Path) -> None:
    with store.writer(limit=1_000_000) as writer:
        writer.write(bytes(1_000_000))
        with pytest.raises(TooLarge, match=re.escape("larger than 1 MB")):
            writer.write(b"x")

    assert files(tmp_path) == []


def test_ten_clients_storing_the_same_file_make_one_blob(store: BlobStore, tmp_path: Path) -> None:
    threads = [threading.Thread(target=store.put_bytes, args=(DATA,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [found.sha256 for found in store.list()] == [SHA]
    verify(store, SHA)
    assert [name for name in files(tmp_path) if name != SHA] == []


def test_a_ready_store_passes_its_check_and_keeps_nothing(store: BlobStore) -> None:
    store.check()

    assert list(store.list()) == []


def test_a_folder_store_lays_blobs_out_by_hash(tmp_path: Path) -> None:
    store = open_store(None, tmp_path)
    store.put_bytes(DATA)

    place = tmp_path / "blobs" / SHA[:2] / SHA[2:4] / SHA
    assert place.read_bytes() == DATA
    assert store.local_path(SHA, tmp_path / "scratch") == place
    assert store.url(SHA, timedelta(minutes=5)) is None
    assert store.free_bytes() is not None


def test_a_folder_store_syncs_the_file_before_and_the_folder_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalBlobStore(tmp_path)
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    store.put_bytes(DATA)

    assert calls == ["file", "folder", "folder", "rename", "folder"]


def test_storing_again_mends_a_damaged_blob_and_makes_it_young(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    store.put_bytes(DATA)
    place = store.local_path(SHA, tmp_path)
    place.write_bytes(DATA[:100])
    os.utime(place, (0, 0))
    with pytest.raises(BlobDamaged, match="damaged"):
        verify(store, SHA)

    store.put_bytes(DATA)

    verify(store, SHA)
    assert store.stat(SHA).modified.year > 2000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_507_and_leaves_nothing(
    store: BlobStore, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(StorageFullError, match="disk is full") as caught:
        store.put_bytes(DATA)

    assert caught.value.status == 507
    assert files(tmp_path) == []


def test_a_disk_that_fills_while_the_last_bytes_are_synced_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = LocalBlobStore(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        store.put_bytes(DATA)

    assert files(tmp_path) == []


def test_a_bucket_store_fetches_a_local_copy_once(tmp_path: Path) -> None:
    store = ObjectBlobStore("memory://", scratch=tmp_path / "spool")
    store.put_bytes(DATA)

    copy = store.local_path(SHA, tmp_path / "scratch")
    assert copy.read_bytes() == DATA
    os.utime(copy, (7, 7))
    assert store.local_path(SHA, tmp_path / "scratch") == copy
    assert copy.stat().st_mtime == 7
    assert store.url(SHA, timedelta(minutes=5)) is None
    assert store.free_bytes() is None
    assert files(tmp_path / "spool") == []


def test_a_bucket_store_refuses_an_object_whose_bytes_changed(tmp_path: Path) -> None:
    store = ObjectBlobStore("memory://", scratch=tmp_path / "spool")
    store.put_bytes(DATA)
    store._bucket.put(f"blobs/{SHA[:2]}/{SHA[2:4]}/{SHA}", b"something else")

    with pytest.raises(BlobDamaged, match="damaged"):
        store.local_path(SHA, tmp_path / "scratch")
    assert files(tmp_path / "scratch") == []


def use_bucket_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set the variables by which a store finds its bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


def test_an_s3_store_signs_addresses_that_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bucket_at(monkeypatch, "https://bucket.example")
    store = ObjectBlobStore("s3://pictures/prefix", scratch=tmp_path)

    address = store.url(SHA, timedelta(minutes=5))

    assert address is not None
    assert address.startswith("https://bucket.example/pictures/prefix/blobs/")
    assert "X-Amz-Expires=300" in address


@pytest.mark.parametrize("url", ["ftp://host/x", "az://nothing/configured", "no address"])
def test_an_address_that_is_no_store_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be used"):
        ObjectBlobStore(url, scratch=tmp_path)


def test_a_bucket_that_does_not_answer_is_a_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bucket_at(monkeypatch, "http://127.0.0.1:9")
    store = ObjectBlobStore("s3://pictures", scratch=tmp_path, retries=0)

    with pytest.raises(StorageUnavailable, match="object store") as caught:
        store.put_bytes(b"x")
    assert caught.value.status == 503


@pytest.mark.parametrize("answers", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n<"])
def test_a_bucket_that_hangs_is_a_503_after_the_time_of_a_request(
    answers: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[socket.socket] = []

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(server.accept()[0])
                kept[-1].sendall(answers)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        use_bucket_at(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        patience = timedelta(seconds=0.2)
        store = ObjectBlobStore("s3://b", scratch=tmp_path, retries=0, request_timeout=patience)
        for use in (store.check, lambda: store.put_bytes(b"x")):
            with pytest.raises(StorageUnavailable, match="object store"):
                use()
        server.shutdown(socket.SHUT_RDWR)
    for one in kept:
        one.close()


def test_an_answer_of_a_bucket_that_breaks_off_is_an_outage_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = (
        b"Content-Length: 999\r\nETag: x\r\nConnection: close\r\n"
        b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
    )
    whole, part = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206 Partial\r\n"

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as client:
                    asked = client.recv(65_536)
                    if b"range:" in asked.lower():
                        client.sendall(part + b"Content-Range: bytes 0-998/999\r\n" + rest)
                    else:
                        client.sendall(whole + rest)
                    if asked.startswith(b"GET"):
                        client.sendall(b"the beginning")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        use_bucket_at(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        store = ObjectBlobStore("s3://b", scratch=tmp_path, retries=0)
        with pytest.raises(StorageUnavailable, match="object store"):
            verify(store, "0" * 64)
        with pytest.raises(StorageUnavailable, match="object store"):
            store.local_path("0" * 64, tmp_path / "copies")
        server.shutdown(socket.SHUT_RDWR)


def test_a_folder_whose_drive_is_not_mounted_is_away_and_misses_no_blob(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    blob = store.put_bytes(DATA)
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    for use in (store.check, lambda: store.open(blob.sha256), lambda: store.put_bytes(b"x")):
        with pytest.raises(StorageUnavailable, match="storage folder"):
            use()
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    with store.open(blob.sha256) as file:
        assert file.read() == DATA
