"""A backup names what is damaged, and a restore brings back everything else."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from app.cli.backup import HashedContent
from app.cli.main import main
from app.registry import migrate
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.storage.folder import LocalBlobStore
from tests.app.blobs.conftest import Filled, fill
from tests.next_revision import next_revision

pytestmark = pytest.mark.usefixtures("no_surroundings")


@dataclass
class Backups:
    """A filled data folder, and the commands on it."""

    filled: Filled
    data_dir: Path
    archive: Path
    restored: Path

    def backup(self) -> int:
        """The exit code of a backup."""
        self.archive.unlink(missing_ok=True)
        return main(["backup", str(self.archive), "--data-dir", str(self.data_dir)])

    def restore(self, *flags: str) -> int:
        """The exit code of a restore to an empty folder."""
        return main(["restore", str(self.archive), *flags, "--data-dir", str(self.restored)])

    def kept(self) -> set[str]:
        """The restored content, by the kind of file."""
        names = {sha256: words for words, sha256 in self.filled.blobs.items()}
        return {names[blob.sha256] for blob in LocalBlobStore(self.restored / "blobs").list()}


@pytest.fixture
def backups(data_dir: Path, tmp_path: Path) -> Backups:
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    filled = fill(Filled(database, LocalBlobStore(data_dir / "blobs")))
    filled.put("a picture")
    return Backups(filled, data_dir, tmp_path / "copy.tar", tmp_path / "other")


def test_a_backup_names_what_is_damaged_or_missing_and_is_still_made(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backups.backup() == 0
    damaged, missing = backups.filled.damage("weights"), backups.filled.lose("image")
    assert backups.backup() == 1
    told = capsys.readouterr()
    assert str(backups.archive) in told.out
    assert told.err.splitlines()[:2] == [
        f"damaged {damaged}: the weights of version 1 of “Ink”",
        f"missing {missing}: the image “fox.png” of the dataset “Toys”",
    ]
    assert "1 file is damaged, 1 file is missing. The archive was written" in told.err


def test_a_restore_takes_what_is_sound_and_lists_the_rest(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, missing = backups.filled.damage("weights"), backups.filled.lose("image")
    backups.backup()
    capsys.readouterr()
    assert backups.restore() == 1
    told = capsys.readouterr()
    assert f"Restored the database and 16 files to {backups.restored}" in told.out
    assert f"damaged {damaged}: the weights of version 1 of “Ink”" in told.err
    assert f"missing {missing}: the image “fox.png” of the dataset “Toys”" in told.err
    assert backups.kept() == set(backups.filled.blobs) - {"weights", "image"}
    assert main(["verify", "--data-dir", str(backups.restored)]) == 1
    backups.filled.store = LocalBlobStore(backups.restored / "blobs")
    for words in ("weights", "image"):
        backups.filled.put(words)
    assert main(["verify", "--data-dir", str(backups.restored)]) == 0


def test_a_strict_restore_is_all_or_nothing(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    backups.filled.lose("image")
    backups.backup()
    assert backups.restore("--strict") == 1
    assert "Nothing was changed: 1 file is missing in the archive" in capsys.readouterr().err
    assert list(backups.restored.iterdir()) == []
    backups.filled.put("image")
    assert backups.backup() == 0
    assert backups.restore("--strict") == 0
    assert backups.kept() == set(backups.filled.blobs)


def test_a_truncated_archive_gives_what_it_has(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    backups.backup()
    with tarfile.open(backups.archive) as tar:
        middle = tar.getmembers()[8].offset_data + 3
    backups.archive.write_bytes(backups.archive.read_bytes()[:middle])
    assert backups.restore() == 1
    assert "is truncated" in capsys.readouterr().err
    assert len(backups.kept()) == 7
    backups.restored = backups.restored.with_name("another")
    assert backups.restore("--strict") == 1
    assert list(backups.restored.iterdir()) == []


def test_a_damaged_header_costs_one_file(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text that looks like an archive inside of a file is not taken for a part of this one."""
    with tarfile.open(backups.data_dir / "inner.tar", "w") as inner:
        inner.add(backups.data_dir / "brushwork.db", "evil.txt")
    inside = backups.filled.store.put_file(backups.data_dir / "inner.tar").sha256
    backups.filled.blobs["inside"] = inside
    backups.backup()
    with tarfile.open(backups.archive) as tar:
        member = next(part for part in tar if part.name.endswith(inside))
    content = bytearray(backups.archive.read_bytes())
    content[member.offset_data - tarfile.BLOCKSIZE] ^= 0xFF
    backups.archive.write_bytes(content)
    assert backups.restore() == 0  # nothing needs that file
    assert backups.kept() == set(backups.filled.blobs) - {"inside"}
    assert sorted(path.name for path in backups.restored.iterdir()) == ["blobs", "brushwork.db"]


def test_a_backup_of_an_older_version_is_understood(
    backups: Backups, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = migrate.head_revision()
    missing = backups.filled.lose("image")
    with next_revision(tmp_path):
        assert backups.backup() == 1
        assert backups.restore() == 1
    assert capsys.readouterr().err.count(f"missing {missing}: the image “fox.png”") == 2
    restored = make_engine(Settings(data_dir=backups.restored).sqlalchemy_url)
    assert migrate.current_revision(restored) == before
    restored.dispose()


def test_an_archive_that_is_too_old_is_written_but_not_restored(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    with backups.filled.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0045'")
    assert backups.backup() == 0
    assert backups.restore() == 1
    assert capsys.readouterr().err == (
        "Nothing was changed: the archive is of an older Brushwork. Check out commit 1df9e16, the "
        "last one that can upgrade it, restore the archive and run `brushwork migrate` there. Then "
        "come back to this version with that data folder.\n"
    )
    assert list(backups.restored.iterdir()) == []


def test_an_archive_of_a_newer_version_is_restored_as_it_is(backups: Backups) -> None:
    with backups.filled.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert backups.backup() == 0
    assert backups.restore() == 0
    assert backups.kept() == set(backups.filled.blobs)


def test_a_damaged_database_is_named_and_not_restored(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    backups.backup()
    with tarfile.open(backups.archive) as tar:
        member = tar.getmember("brushwork.db")
    content = bytearray(backups.archive.read_bytes())
    place = member.offset_data + 4096
    content[place : place + 4096] = b"\xff" * 4096
    backups.archive.write_bytes(content)
    assert backups.restore() == 1
    assert "the database in the archive is damaged" in capsys.readouterr().err
    assert list(backups.restored.iterdir()) == []


@pytest.mark.parametrize("table", ["image", "base_model"])
def test_a_backup_of_a_damaged_table_is_made_and_says_so(
    table: str, backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    fused = backups.data_dir / "fused" / "inked-1-0123abcd.safetensors"
    fused.parent.mkdir()
    fused.write_bytes(b"of the file")
    with backups.filled.database.write() as session:
        added_models.add_path(session, base_models.BASE_MODELS, str(fused))
    backups.filled.database.dispose()
    damaged = backups.filled.damage("weights")
    overwrite_root_page(backups.data_dir / "brushwork.db", table)
    assert backups.backup() == 1
    told = capsys.readouterr()
    assert str(backups.archive) in told.out
    assert told.err.splitlines()[:2] == ["damaged: the database", f"damaged {damaged}"]
    assert "The archive was written" in told.err
    with tarfile.open(backups.archive) as tar:
        names = tar.getnames()
    assert len([name for name in names if name.startswith("blobs/")]) == len(backups.filled.blobs)
    assert "fused/inked-1-0123abcd.safetensors" in names
    assert backups.restore() == 1
    assert "the database in the archive is damaged" in capsys.readouterr().err


def overwrite_root_page(database: Path, table: str) -> None:
    """Damage a table, as a bad sector does."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = opened.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = opened.execute(query, (table,)).fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_rows_that_cannot_be_read_are_a_damaged_database(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages are sound, but what is in them is not."""
    with contextlib.closing(sqlite3.connect(backups.data_dir / "brushwork.db")) as opened, opened:
        opened.execute("UPDATE dataset SET name = CAST(x'ff' AS TEXT)")
    backups.filled.lose("image")
    assert backups.backup() == 1
    assert "damaged: the database" in capsys.readouterr().err
    assert backups.restore() == 1
    assert "the database in the archive is damaged" in capsys.readouterr().err


def test_a_file_of_a_fused_base_that_cannot_be_opened_is_named(
    backups: Backups, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = backups.data_dir / "fused" / "inked-1-0123abcd"
    folder.mkdir(parents=True)
    for name in ("closed", "open"):
        (folder / name).write_bytes(b"weights")
    with backups.filled.database.write() as session:
        added_models.add_path(session, base_models.BASE_MODELS, str(folder))
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert backups.backup() == 1
    told = capsys.readouterr().err
    assert told.startswith("damaged: fused/inked-1-0123abcd/closed cannot be read\n")
    with tarfile.open(backups.archive) as tar:
        names = [name for name in tar.getnames() if name.startswith("fused/")]
    assert names == ["fused/inked-1-0123abcd", "fused/inked-1-0123abcd/open"]


def test_what_cannot_be_read_becomes_zeros(tmp_path: Path) -> None:
    class BadSector:
        def seek(self, position: int) -> None:
            self.position = position

        def read(self, size: int) -> bytes:
            if self.position == 4:
                raise OSError(5, "Input/output error")
            return b"abcd" if self.position == 0 else b"ij"

    source: BinaryIO = BadSector()  # type: ignore[assignment]
    copied = HashedContent(source)
    assert [copied.read(4) for _ in range(3)] == [b"abcd", bytes(4), b"ij\0\0"]
    assert not copied.is_whole
