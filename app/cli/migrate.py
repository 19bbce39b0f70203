"""`brushwork migrate`: migrates the database, after making a copy of a SQLite file."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from app.cli.database import first_line, open_database
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.migrate import complete_search_index, head_revision, upgrade, usable_revision
from app.registry.people.service import require_accounts

KEPT_COPIES = 3
SAME_UPGRADE_SECONDS = 86_400  # an upgrade that was killed is tried again within a day
FULL_BYTES = 1_000_000


def run(arguments: Namespace, settings: Settings) -> int:
    """Migrate the configured database; return 2 if that is not possible.

    Raises UnusableDatabase, and before serving Conflict.
    """
    try:
        print(migrate(settings), flush=True)
        if arguments.before_serve:
            with open_database(settings) as database, database.read() as session:
                require_accounts(session, accounts=settings.accounts)
    except (sa.exc.OperationalError, sqlite3.OperationalError, OSError) as error:
        reason = _reason(error, settings)
        print(f"The database cannot be migrated: {reason}.", file=sys.stderr, flush=True)
        return 2
    return 0


def _reason(error: Exception, settings: Settings) -> str:
    """Why the database cannot be written. SQLite has several errors for a full disk."""
    folder = settings.data_dir
    is_local = not settings.database_url and folder.exists()
    if is_local and shutil.disk_usage(folder).free < FULL_BYTES:
        return f"the disk of {folder} is full"
    return first_line(error) if isinstance(error, sa.exc.OperationalError) else str(error)


def migrate(settings: Settings) -> str:
    """Migrate the database to this version; return a sentence on what was done.

    Raises UnusableDatabase if it is too old, of a newer version, of another program, or no
    database.
    """
    engine = make_engine(settings.sqlalchemy_url)
    try:
        before, head = usable_revision(engine), head_revision()
        if before == head:
            complete_search_index(engine)
            return f"The database is up to date (revision {head})."
        copy = copy_before_upgrade(settings, before)
        upgrade(engine)
    finally:
        engine.dispose()
    kept = f" The old database was copied to {copy}." if copy else ""
    return f"The database was migrated from revision {before or 'none'} to {head}.{kept}"


def copy_before_upgrade(settings: Settings, revision: str | None) -> Path | None:
    """Copy a non-empty SQLite database, because SQLite cannot roll back a migration."""
    url = sa.make_url(settings.sqlalchemy_url)
    if revision is None or url.get_backend_name() != "sqlite" or not url.database:
        return None
    source = Path(url.database)
    copy = source.with_name(f"{source.name}.before-{revision}")
    unfinished = copy.with_name(f"{copy.name}.part")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(unfinished)) as new:
        old.backup(new)
    # an upgrade that was killed must not replace the good copy; one of another year is not a copy
    if copy.exists() and time.time() - copy.stat().st_mtime > SAME_UPGRADE_SECONDS:
        copy = copy.with_name(f"{copy.name}.{int(time.time())}")
    if not copy.exists():
        unfinished.rename(copy)
    unfinished.unlink(missing_ok=True)
    copies = sorted(
        source.parent.glob(f"{source.name}.before-*"), key=lambda file: file.stat().st_mtime
    )
    for outdated in copies[:-KEPT_COPIES]:
        outdated.unlink()
    return copy
