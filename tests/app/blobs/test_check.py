"""A check of the store finds what is damaged and missing, and forgets what is mended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.cli.verify import verify_store
from app.registry.blobs import thumbnails
from app.registry.blobs.check import StoreCheck
from app.registry.db import utcnow
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.blobs import FileProblem
from app.registry.tables.renders import RenderImage
from app.registry.tables.runs import Checkpoint
from tests.app.blobs.conftest import Filled

DAMAGED, MISSING = FileProblem.DAMAGED, FileProblem.MISSING


def verify(filled: Filled) -> int:
    return verify_store(filled.database, filled.store, reads=True)


def test_sound_files_pass(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(filled) == 0
    assert capsys.readouterr().out.startswith("All files are sound (17 files, ")
    assert filled.problems() == {}


def test_damaged_and_missing_files_are_listed_with_what_needs_them(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, missing = filled.damage("weights"), filled.lose("image")
    lost = filled.put("nobody needs this")
    filled.damage("nobody needs this")
    assert verify(filled) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"damaged {damaged}: the weights of version 1 of “Ink”",
        f"missing {missing}: the image “fox.png” of the dataset “Toys”",
        f"damaged {lost}: nothing refers to it",
    ]
    assert told.err.startswith("2 files are damaged, 1 file is missing (17 files, ")
    assert filled.problems() == {
        "weights": DAMAGED,
        "image": MISSING,
        "nobody needs this": DAMAGED,
    }


def test_what_is_mended_or_gone_is_forgotten(filled: Filled) -> None:
    filled.damage("weights")
    filled.lose("image")
    filled.put("nobody needs this")
    filled.damage("nobody needs this")
    assert verify(filled) == 1
    for words in ("weights", "image"):
        filled.put(words)
    filled.lose("nobody needs this")
    assert verify(filled) == 0
    assert filled.problems() == {}


def test_presence_and_size_are_enough_for_a_bucket_unless_asked(filled: Filled) -> None:
    filled.damage("download")
    assert verify_store(filled.database, filled.store, reads=False) == 0
    assert verify_store(filled.database, filled.store, reads=True) == 1
    assert verify_store(filled.database, filled.store, reads=False) == 1  # known, so read again
    filled.put("download")
    assert verify_store(filled.database, filled.store, reads=False) == 0


def test_a_file_of_another_size_is_read(filled: Filled) -> None:
    sha256 = filled.blobs["state"]
    with filled.database.write() as session:
        session.get_one(Checkpoint, 1).size_bytes += 1
    check = StoreCheck(filled.database, filled.store)
    check.find_missing()
    assert check.suspects == [sha256]
    check.read(check.suspects)
    assert check.problems == {}


def test_a_row_that_is_deleted_during_the_check_misses_no_file(folder: Filled) -> None:
    """The files of a deleted row go too, after the references were read."""
    calls = []

    def delete(_: int) -> None:
        if not calls:
            calls.append(1)
            with folder.database.write() as session:
                session.delete(session.get_one(RenderImage, 1))
            folder.lose("render")
            folder.lose("small render")

    check = StoreCheck(folder.database, folder.store, on_chunk=delete)
    check.find_missing()
    assert calls
    assert check.problems == {}


def test_each_file_is_due_once_in_the_time_given_the_oldest_first(folder: Filled) -> None:
    check = StoreCheck(folder.database, folder.store)
    stored = list(check.find_missing())
    month = timedelta(days=30)
    assert set(check.due(stored, before=utcnow() - month)) == set(stored)
    assert check.read(stored[:3]) == 0
    assert check.due(stored, before=utcnow() - month) == stored[3:]
    assert check.due(stored, before=utcnow())[-3:] == stored[:3]
    assert check.read(stored, seconds=-1) == len(stored)


@pytest.mark.parametrize("words", ["weights", "image"])
def test_nothing_damaged_is_opened(
    filled: Filled, words: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, scratch = filled.store, tmp_path_factory.mktemp("scratch")
    store.checked_stat(filled.blobs[words])
    sha256 = filled.damage(words)
    for use in (store.open, store.checked_stat, lambda name: store.local_path(name, scratch)):
        with pytest.raises(BlobDamaged, match="damaged") as caught:
            use(sha256)
        assert caught.value.sha256 == sha256
    filled.put(words)
    with store.open(sha256) as content:
        assert content.read() == words.encode()
    filled.lose(words)
    with pytest.raises(BlobNotFound):
        store.open(sha256)


def test_a_file_is_read_once_for_any_number_of_uses(
    folder: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        "app.registry.storage.folder.check_content", lambda file, sha256: read.append(sha256)
    )
    sha256 = folder.blobs["weights"]
    for _ in range(3):
        folder.store.open(sha256).close()
        folder.store.checked_stat(sha256)
    assert read == [sha256]
    folder.put("weights")  # another time, so it may have changed
    folder.store.checked_stat(sha256)
    assert len(read) > 1


def test_a_damaged_thumbnail_is_made_again(filled: Filled) -> None:
    filled.damage("small render")
    assert verify(filled) == 1
    with filled.database.read() as session:
        assert filled.blobs["render"] in thumbnails.list_missing(session, limit=9)
