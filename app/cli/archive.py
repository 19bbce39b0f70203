"""`brushwork backup` and `brushwork restore`: database and files as one archive."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from argparse import Namespace
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from app.registry.base_models.downloads import FUSED_FOLDER, is_fused
from app.registry.config import Settings
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobNotFound
from app.registry.wording import size_text

DATABASE = "brushwork.db"
BLOBS = "blobs"


class ArchiveError(Exception):
    """The archive could not be made or used; the message says why."""


def run(arguments: Namespace, settings: Settings) -> int:
    """Write or read an archive; 1 with a sentence when that cannot be done."""
    try:
        if arguments.command == "backup":
            path = backup(settings, arguments.archive or Path(archive_name(datetime.now(UTC))))
            print(f"{path} ({size_text(path.stat().st_size)})")
        else:
            files = restore(settings, arguments.archive)
            print(f"{settings.data_dir} has the database and {files} files. Start with `serve`.")
    except (ArchiveError, OSError, tarfile.TarError, sqlite3.Error) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    return 0


def archive_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"brushwork-{now:%Y%m%d-%H%M%S}.tar"


def require_embedded(settings: Settings) -> Path:
    """The SQLite file; ArchiveError when database or files lie on a server."""
    url = sa.make_url(settings.sqlalchemy_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise ArchiveError(
            "the database is on a server. Use its own tools (pg_dump, pg_restore) for a copy."
        )
    if settings.storage_url:
        raise ArchiveError("the files are in a bucket. Copy it with the tools of your provider.")
    return Path(url.database)


def backup(settings: Settings, archive: Path) -> Path:
    """The archive with database and files; Brushwork may go on running meanwhile.

    First the database, then the files: a blob is always there before the row that names it.
    Base models from the Hub are left out, those fused here are not.
    """
    source = require_embedded(settings)
    if not source.exists():
        raise ArchiveError(f"there is no database in {settings.data_dir}.")
    if archive.exists():
        raise ArchiveError(f"{archive} exists already.")
    unfinished = archive.with_name(f"{archive.name}.part")
    with tempfile.TemporaryDirectory(prefix="brushwork-") as folder:
        copy = Path(folder) / DATABASE
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
            fused = _detach_fused(new, settings.data_dir)
        try:
            with tarfile.open(unfinished, "w") as tar:
                tar.add(copy, DATABASE)
                _add_blobs(tar, settings.data_dir)
                for name in fused:
                    path = f"{FUSED_FOLDER}/{name}"
                    tar.add(settings.data_dir / path, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return unfinished.replace(archive)


def _add_blobs(tar: tarfile.TarFile, data_dir: Path) -> None:
    store = LocalBlobStore(data_dir / BLOBS)
    for blob in store.list():
        # one that is swept in this moment is one that nobody refers to
        with contextlib.suppress(BlobNotFound, FileNotFoundError):
            path = store.local_path(blob.sha256, data_dir)
            tar.add(path, str(path.relative_to(data_dir)))


def _detach_fused(database: sqlite3.Connection, data_dir: Path) -> list[str]:
    """Name the base models fused here relative to the data folder; gives those with files."""
    sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
    fused = [Path(source) for source in sources if is_fused(source, data_dir)]
    _rename(database, {str(path): f"{FUSED_FOLDER}/{path.name}" for path in fused})
    return [path.name for path in fused if path.exists()]


def _attach_fused(database: sqlite3.Connection, data_dir: Path) -> None:
    """Point the base models that were fused to where their files come to lie."""
    sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
    home = (data_dir / FUSED_FOLDER).resolve()
    fused = [source for source in sources if source.startswith(f"{FUSED_FOLDER}/")]
    _rename(database, {source: str(home / Path(source).name) for source in fused})


def _rename(database: sqlite3.Connection, sources: dict[str, str]) -> None:
    with database:
        database.executemany(
            "UPDATE base_model SET source = ? WHERE source = ?",
            [(new, old) for old, new in sources.items()],
        )


def restore(settings: Settings, archive: Path) -> int:
    """How many files came back; the data folder has to be empty, and gets all or nothing."""
    require_embedded(settings)
    data_dir = settings.data_dir
    if data_dir.exists() and any(data_dir.iterdir()):
        raise ArchiveError(
            f"the data folder {data_dir} is not empty. Name an empty one with --data-dir."
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=data_dir))
    try:
        _unpack(archive, staging)
        files = _check(staging)
        with closing(sqlite3.connect(staging / DATABASE)) as database:
            _attach_fused(database, data_dir)
        for part in staging.iterdir():
            part.rename(data_dir / part.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return files


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.ReadError as error:
        raise ArchiveError(
            f"{archive} is no archive of Brushwork, or its end is missing. Copy it here again."
        ) from error


def _check(folder: Path) -> int:
    """How many files there are; ArchiveError when anything is damaged or foreign."""
    parts = {path.name for path in folder.iterdir()}
    if DATABASE not in parts or parts - {DATABASE, BLOBS, FUSED_FOLDER}:
        raise ArchiveError("this is no archive of Brushwork.")
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise ArchiveError("the database in the archive is damaged.")
    blobs = [path for path in (folder / BLOBS).rglob("*") if path.is_file()]
    for path in blobs:
        with path.open("rb") as file:
            found = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        if found != path.name:
            raise ArchiveError(f"the file {path.name[:12]}… in the archive is damaged.")
    fused = [path for path in (folder / FUSED_FOLDER).rglob("*") if path.is_file()]
    return len(blobs) + len(fused)
