"""`brushwork backup` and `brushwork restore`: the database and files as one archive."""

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
    """The archive could not be created or used; the message gives the reason."""


def run(arguments: Namespace, settings: Settings) -> int:
    """Write or read an archive; print a message and return 1 on failure."""
    try:
        if arguments.command == "backup":
            path = backup(settings, arguments.archive or Path(archive_name(datetime.now(UTC))))
            print(f"{path} ({size_text(path.stat().st_size)})")
        else:
            files = restore(settings, arguments.archive)
            print(
                f"Restored the database and {files} files to {settings.data_dir}. Start Brushwork "
                "with `brushwork serve`."
            )
    except (ArchiveError, OSError, tarfile.TarError, sqlite3.Error) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    return 0


def archive_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"brushwork-{now:%Y%m%d-%H%M%S}.tar"


def require_embedded(settings: Settings) -> Path:
    """The SQLite file. Raises ArchiveError if the database or files are on a server."""
    url = sa.make_url(settings.sqlalchemy_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise ArchiveError(
            "the database is on a server. Use its own tools (pg_dump, pg_restore) for backups."
        )
    if settings.storage_url:
        raise ArchiveError("the files are in a bucket. Back it up with your provider's tools.")
    return Path(url.database)


def backup(settings: Settings, archive: Path) -> Path:
    """Write an archive with the database and files; Brushwork may keep running.

    The database is copied before the files, because a blob is stored before the row that refers
    to it. Base models from the Hub are excluded; those fused here are included.
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
        # a blob that is swept meanwhile is not referred to
        with contextlib.suppress(BlobNotFound, FileNotFoundError):
            path = store.local_path(blob.sha256, data_dir)
            tar.add(path, str(path.relative_to(data_dir)))


def _detach_fused(database: sqlite3.Connection, data_dir: Path) -> list[str]:
    """Make paths of base models fused here relative; return the names of those with files."""
    sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
    fused = [Path(source) for source in sources if is_fused(source, data_dir)]
    _rename_base_paths(database, {str(path): f"{FUSED_FOLDER}/{path.name}" for path in fused})
    return [path.name for path in fused if path.exists()]


def _attach_fused(database: sqlite3.Connection, data_dir: Path) -> None:
    """Make paths of fused base models absolute again, in this data folder."""
    sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
    home = (data_dir / FUSED_FOLDER).resolve()
    fused = [source for source in sources if source.startswith(f"{FUSED_FOLDER}/")]
    _rename_base_paths(database, {source: str(home / Path(source).name) for source in fused})


def _rename_base_paths(database: sqlite3.Connection, sources: dict[str, str]) -> None:
    with database:
        database.executemany(
            "UPDATE base_model SET source = ? WHERE source = ?",
            [(new, old) for old, new in sources.items()],
        )


def restore(settings: Settings, archive: Path) -> int:
    """Restore everything or nothing to an empty data folder; return the number of files."""
    require_embedded(settings)
    data_dir = settings.data_dir
    if data_dir.exists() and any(data_dir.iterdir()):
        raise ArchiveError(
            f"the data folder {data_dir} is not empty. Choose an empty one with --data-dir."
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=data_dir))
    try:
        _unpack_archive(archive, staging)
        files = _verify_archive(staging)
        with closing(sqlite3.connect(staging / DATABASE)) as database:
            _attach_fused(database, data_dir)
        for part in staging.iterdir():
            part.rename(data_dir / part.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return files


def _unpack_archive(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.ReadError as error:
        raise ArchiveError(
            f"{archive} is not a Brushwork archive, or it is truncated. Copy it here again."
        ) from error


def _verify_archive(folder: Path) -> int:
    """Verify the unpacked archive; return its number of files. Raises ArchiveError."""
    parts = {path.name for path in folder.iterdir()}
    if DATABASE not in parts or parts - {DATABASE, BLOBS, FUSED_FOLDER}:
        raise ArchiveError("this is not a Brushwork archive.")
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise ArchiveError("the database in the archive is damaged. Use another backup.")
    blobs = [path for path in (folder / BLOBS).rglob("*") if path.is_file()]
    for path in blobs:
        with path.open("rb") as file:
            found = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        if found != path.name:
            raise ArchiveError(
                f"the file {path.name[:12]}… in the archive is damaged. Use another backup."
            )
    fused = [path for path in (folder / FUSED_FOLDER).rglob("*") if path.is_file()]
    return len(blobs) + len(fused)
