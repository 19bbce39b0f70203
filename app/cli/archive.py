"""The parts of an archive and its checks, for `brushwork backup` and `brushwork restore`.

An archive is a tar with the SQLite database, the blobs, and the base models that were fused here.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from app.registry.blobs.report import BadFile, describe
from app.registry.blobs.subjects import list_references
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.errors import UnusableDatabase
from app.registry.migrate import head_revision, upgrade, usable_revision
from app.registry.outages import outage
from app.registry.tables.blobs import FileProblem

DATABASE = "brushwork.db"
BLOBS = "blobs"
UNREADABLE_ROWS = (sa.exc.DatabaseError, ValueError, LookupError, RuntimeError)
"""Errors of reading or migrating damaged rows, though the pages of the database are sound."""


class ArchiveError(Exception):
    """The archive could not be created or used; the message gives the reason."""


class DamagedDatabase(Exception):
    """The pages of a SQLite file do not fit together, or its rows cannot be read."""


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


def is_sound(database: Path) -> bool:
    """True if there is such a SQLite file, and its pages fit together."""
    if not database.is_file():
        return False
    try:
        with closing(sqlite3.connect(database)) as opened:
            return bool(opened.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


def bad_files(database: Path, stored: Collection[str], damaged: Collection[str]) -> list[BadFile]:
    """The damaged files and those that rows need but that are not stored, with what needs them.

    `database`: a SQLite file of any version, which is not changed. What needs a file is unknown if
    it is of a newer version or too old. Raises DamagedDatabase.
    """
    if not is_sound(database):
        raise DamagedDatabase
    problems = dict.fromkeys(damaged, FileProblem.DAMAGED)
    with tempfile.TemporaryDirectory(prefix="brushwork-") as folder:
        copy = Path(shutil.copyfile(database, Path(folder) / DATABASE))
        registry = Database(make_engine(f"sqlite:///{copy}"))
        try:
            if usable_revision(registry.engine) != head_revision():
                upgrade(registry.engine)
            with registry.read() as session:
                needed = {reference.sha256 for reference in list_references(session)}
                missing = needed.difference(stored, damaged)
                problems |= dict.fromkeys(sorted(missing), FileProblem.MISSING)
                return describe(session, problems)
        except UnusableDatabase:
            return [BadFile(sha256, problem, ()) for sha256, problem in problems.items()]
        except UNREADABLE_ROWS as error:
            if outage(error):
                raise
            raise DamagedDatabase from error
        finally:
            registry.dispose()
