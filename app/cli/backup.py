"""`brushwork backup`: writes the database and files as one archive, and checks them meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import sys
import tarfile
import tempfile
from argparse import Namespace
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.cli.archive import (
    BLOBS,
    DATABASE,
    ArchiveError,
    DamagedDatabase,
    bad_files,
    require_embedded,
)
from app.registry.base_models.fused_files import FUSED_FOLDER, is_fused
from app.registry.blobs.report import BadFile, summary
from app.registry.config import Settings
from app.registry.outages import outage
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.blobs import FileProblem
from app.registry.wording import size_text

NOT_ALL_SOUND = (
    "The archive was written, but not all of it is sound. Keep older archives, and restore, make "
    "or upload these again."
)


@dataclass(frozen=True)
class Backup:
    """A written archive; `bad`: blobs that are damaged or missing, `unreadable`: other parts."""

    path: Path
    bad: list[BadFile]
    unreadable: list[str]


def run(arguments: Namespace, settings: Settings) -> int:
    """Write an archive; return 1 if there is none, or if something in it is damaged or missing."""
    name = f"brushwork-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar"  # sorts by time
    try:
        made = backup(settings, arguments.archive or Path(name))
    except (ArchiveError, OSError, tarfile.TarError, sqlite3.Error) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    print(f"{made.path} ({size_text(made.path.stat().st_size)})")
    for line in (*(file.line for file in made.bad), *made.unreadable):
        print(line, file=sys.stderr)
    if not (made.bad or made.unreadable):
        return 0
    counts = f"{summary(made.bad)}. " if made.bad else ""
    print(f"{counts}{NOT_ALL_SOUND}", file=sys.stderr)
    return 1


def backup(settings: Settings, archive: Path) -> Backup:
    """Write an archive with the database and files; Brushwork may keep running.

    The database is copied before the files, because a blob is stored before the row that refers
    to it. Base models from the Hub are excluded; those fused here are included. A damaged file is
    copied as it is, and so is a damaged database.
    """
    source = require_embedded(settings)
    if not source.exists():
        raise ArchiveError(
            f"there is no database in {settings.data_dir}. Name the data folder with --data-dir."
        )
    if archive.exists():
        raise ArchiveError(f"{archive} already exists. Choose another name.")
    unfinished = archive.with_name(f"{archive.name}.part")
    with tempfile.TemporaryDirectory(prefix="brushwork-") as folder:
        copy = Path(folder) / DATABASE
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
            fused = _detach_fused(new, settings.data_dir)
        try:
            # one header for each file: a damaged one costs no other file
            with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
                tar.add(copy, DATABASE)
                files = ArchiveFiles(tar, settings.data_dir)
                bad = files.add_blobs(copy)
                for name in fused:
                    files.add_tree(settings.data_dir / FUSED_FOLDER / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return Backup(unfinished.replace(archive), bad, files.unreadable)


def _detach_fused(database: sqlite3.Connection, data_dir: Path) -> list[str]:
    """Make paths of base models fused here relative; return the names of those with files.

    If the table is damaged, it stays as it is, and these are all finished files of the folder.
    """
    try:
        sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
        fused = [Path(source) for source in sources if is_fused(source, data_dir)]
        with database:
            database.executemany(
                "UPDATE base_model SET source = ? WHERE source = ?",
                [(f"{FUSED_FOLDER}/{path.name}", str(path)) for path in fused],
            )
    except sqlite3.DatabaseError as error:
        if outage(error):
            raise
        return sorted(path.name for path in (data_dir / FUSED_FOLDER).glob("[!.]*"))
    return [path.name for path in fused if path.exists()]


class ArchiveFiles:
    """Adds files of a data folder to an archive.

    `unreadable` are lines about the database and about files that are not blobs.
    """

    def __init__(self, tar: tarfile.TarFile, data_dir: Path) -> None:
        self.unreadable: list[str] = []
        self._tar = tar
        self._data_dir = data_dir
        self._store = LocalBlobStore(data_dir / BLOBS)
        self._sound: set[str] = set()
        self._damaged: set[str] = set()

    def add_blobs(self, database: Path) -> list[BadFile]:
        """Add every blob; return those that are damaged, or missing though rows need them.

        If the database is damaged, what needs them is unknown; `unreadable` names all.
        """
        for blob in self._store.list():
            self._add_blob(blob.sha256)
        try:
            bad = bad_files(database, self._sound, self._damaged)
        except DamagedDatabase:
            self.unreadable.append("damaged: the database")
            self.unreadable += [f"damaged {sha256}" for sha256 in sorted(self._damaged)]
            return []
        for file in bad:
            if file.problem is FileProblem.MISSING:
                self._add_blob(file.sha256)  # if the sweep has just moved it to the trash
        return [file for file in bad if file.sha256 not in self._sound]

    def _add_blob(self, sha256: str) -> None:
        # a blob that is swept meanwhile is not referred to
        with contextlib.suppress(BlobNotFound):
            try:
                content = self._store.open_unchecked(sha256)
            except BlobDamaged:  # not even opened
                self._damaged.add(sha256)
                return
            with content:
                path = Path(content.name)
                found = self._add_file(content, str(path.relative_to(self._data_dir)))
            (self._sound if found == sha256 else self._damaged).add(sha256)

    def add_tree(self, path: Path) -> None:
        """Add a file, or a folder with everything in it; one that cannot be opened is left out."""
        for part in (path, *sorted(path.rglob("*"))):
            name = str(part.relative_to(self._data_dir))
            try:
                content = _open_file(part)
            except OSError:
                self.unreadable.append(f"damaged: {name} cannot be read")
                continue
            if content is None:
                self._tar.add(part, name, recursive=False)
                continue
            with content:
                if self._add_file(content, name) is None:
                    self.unreadable.append(f"damaged: {name} cannot be read")

    def _add_file(self, content: BinaryIO, name: str) -> str | None:
        """Add an opened file; return the hash of what was added, None if not all could be read."""
        info = self._tar.gettarinfo(arcname=name, fileobj=content)
        copied = HashedContent(content)
        self._tar.addfile(info, copied)
        return copied.digest.hexdigest() if copied.is_whole else None


def _open_file(path: Path) -> BinaryIO | None:
    """The opened file; None for a link and for a folder that can be listed. Raises OSError."""
    if path.is_symlink():
        return None
    if path.is_dir():
        with os.scandir(path):
            return None
    return path.open("rb") if path.is_file() else None


class HashedContent:
    """The content of a file, hashed while it is read.

    What cannot be read becomes zeros, so that the archive stays in order.
    """

    def __init__(self, content: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.is_whole = True
        self._content = content
        self._position = 0

    def read(self, size: int = 0, /) -> bytes:
        """The next `size` bytes, no fewer."""
        try:
            self._content.seek(self._position)
            chunk = self._content.read(size)
        except OSError:  # a bad sector
            chunk = b""
        self._position += size
        if len(chunk) < size:
            self.is_whole = False
        chunk = chunk.ljust(size, b"\0")
        self.digest.update(chunk)
        return chunk
