"""`brushwork restore`: everything that is sound in an archive, to an empty data folder."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from argparse import Namespace
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from app.cli.archive import (
    BLOBS,
    DATABASE,
    ArchiveError,
    DamagedDatabase,
    bad_files,
    require_embedded,
)
from app.registry.base_models.fused_files import FUSED_FOLDER
from app.registry.blobs import ownership
from app.registry.blobs.report import BadFile, summary
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.errors import OutdatedDatabase, UnusableDatabase
from app.registry.migrate import LAST_COMMIT, is_current, usable_revision
from app.registry.storage.folder import LocalBlobStore
from app.registry.wording import plural

BLOB_NAME = re.compile(rf"{BLOBS}/[0-9a-f]{{2}}/[0-9a-f]{{2}}/[0-9a-f]{{64}}")
NOT_RESTORED = (
    "Everything else was restored. Another archive may have these; with --strict nothing is "
    "restored unless everything is sound."
)


@dataclass(frozen=True)
class Restored:
    """The number of restored files, and the blobs that could not be restored."""

    files: int
    bad: list[BadFile]
    is_truncated: bool


def run(arguments: Namespace, settings: Settings) -> int:
    """Restore an archive; return 1 if nothing was restored, or not everything."""
    try:
        done = restore(settings, arguments.archive, strict=arguments.strict)
    except (ArchiveError, OSError, tarfile.TarError, sqlite3.Error) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    print(
        f"Restored the database and {plural(done.files, 'file')} to {settings.data_dir}. Start "
        "Brushwork with `brushwork serve`."
    )
    for file in done.bad:
        print(file.line, file=sys.stderr)
    if done.is_truncated:
        print(f"{arguments.archive} is truncated or damaged.", file=sys.stderr)
    if done.bad:
        print(f"{summary(done.bad)}. {NOT_RESTORED}", file=sys.stderr)
    return 1 if done.bad or done.is_truncated else 0


def restore(settings: Settings, archive: Path, *, strict: bool = False) -> Restored:
    """Restore what is sound to an empty data folder; `strict`: everything or nothing.

    Raises ArchiveError if the database is damaged or too old, too.
    """
    require_embedded(settings)
    data_dir = settings.data_dir
    if data_dir.exists() and any(data_dir.iterdir()):
        raise ArchiveError(
            f"the data folder {data_dir} is not empty. Choose an empty one with --data-dir."
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=data_dir))
    try:
        is_truncated = _unpack_archive(archive, staging, strict=strict)
        stored, damaged = _take_sound(staging / BLOBS)
        try:
            bad = bad_files(staging / DATABASE, stored, damaged)
        except DamagedDatabase as error:
            raise ArchiveError(
                "the database in the archive is damaged. Use another backup."
            ) from error
        if strict and bad:
            raise ArchiveError(
                f"{summary(bad)} in the archive, such as {bad[0].line}. Use another backup, or "
                "restore without --strict."
            )
        with closing(sqlite3.connect(staging / DATABASE)) as database:
            _attach_fused(database, data_dir)
        _claim_blobs(staging)
        fused = sum(path.is_file() for path in (staging / FUSED_FOLDER).rglob("*"))
        for part in staging.iterdir():
            part.rename(data_dir / part.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(len(stored) + fused, bad, is_truncated)


def _unpack_archive(archive: Path, folder: Path, *, strict: bool) -> bool:
    """Unpack the parts of an archive; True if it ends early or parts of it cannot be read.

    The database is the first part. Raises ArchiveError if it is not there as a whole, or too old.
    """
    has_database = False
    try:
        # past a damaged header, the next one is looked for
        with tarfile.open(archive, "r", ignore_zeros=not strict) as tar:
            for member in tar:
                if _is_wanted(member, has_database=has_database, strict=strict):
                    tar.extract(member, folder, filter="data")
                    if not has_database:  # it comes first
                        _require_upgradable(folder / DATABASE)
                        has_database = True
    except tarfile.ReadError as error:
        if strict or not has_database:
            raise ArchiveError(
                f"{archive} is not a Brushwork archive, or it is truncated. Copy it here again."
            ) from error
        return True
    if not has_database:
        raise ArchiveError("this is not a Brushwork archive.")
    return False


def _require_upgradable(database: Path) -> None:
    """Raise ArchiveError if the database is older than the first migration of this version."""
    engine = make_engine(f"sqlite:///{database}")
    try:
        usable_revision(engine)
    except OutdatedDatabase as error:
        raise ArchiveError(
            f"the archive is of an older Brushwork. Check out commit {LAST_COMMIT}, the last one "
            "that can upgrade it, restore the archive and run `brushwork migrate` there. Then come "
            "back to this version with that data folder."
        ) from error
    except (UnusableDatabase, sa.exc.DatabaseError):
        pass  # a newer one is restored as it is; a damaged one is found out about later
    finally:
        engine.dispose()


def _is_wanted(member: tarfile.TarInfo, *, has_database: bool, strict: bool) -> bool:
    """True for a part of an archive; what looks like a header inside of a file is none."""
    if not has_database:
        is_part = member.name == DATABASE and member.isfile()
    elif BLOB_NAME.fullmatch(member.name):
        is_part = member.isfile()
    else:
        is_part = member.name.startswith(f"{FUSED_FOLDER}/")
    if strict and not is_part:
        raise ArchiveError("this is not a Brushwork archive.")
    return is_part


def _take_sound(blobs: Path) -> tuple[set[str], set[str]]:
    """(hashes of the unpacked blobs that are sound, hashes of the others, which are deleted)."""
    stored, damaged = set(), set()
    for path in blobs.glob("??/??/*"):
        with path.open("rb") as file:
            found = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        if found == path.name:
            stored.add(path.name)
        else:
            damaged.add(path.name)
            path.unlink()
    return stored, damaged


def _claim_blobs(folder: Path) -> None:
    """Make the restored files those of the restored database, so that it may sweep.

    A database of an older version does that itself with its first sweep.
    """
    database = Database(make_engine(f"sqlite:///{folder / DATABASE}"))
    try:
        if is_current(database.engine):
            ownership.claim(database, LocalBlobStore(folder / BLOBS))
    finally:
        database.dispose()


def _attach_fused(database: sqlite3.Connection, data_dir: Path) -> None:
    """Make paths of fused base models absolute again, in this data folder."""
    sources = [row[0] for row in database.execute("SELECT source FROM base_model")]
    home = (data_dir / FUSED_FOLDER).resolve()
    fused = [source for source in sources if source.startswith(f"{FUSED_FOLDER}/")]
    with database:
        database.executemany(
            "UPDATE base_model SET source = ? WHERE source = ?",
            [(str(home / Path(source).name), source) for source in fused],
        )
