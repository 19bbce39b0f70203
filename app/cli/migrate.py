"""`brushwork migrate`: migrates the database, after making a copy of a SQLite file."""

from __future__ import annotations

import sqlite3
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.migrate import current_revision, head_revision, upgrade

KEPT_COPIES = 3


def run(arguments: Namespace, settings: Settings) -> int:
    """Migrate the configured database; return 0."""
    print(migrate(settings), flush=True)
    return 0


def migrate(settings: Settings) -> str:
    """Migrate the database to this version; return a sentence on what was done."""
    engine = make_engine(settings.sqlalchemy_url)
    try:
        before, head = current_revision(engine), head_revision()
        if before == head:
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
    if not copy.exists():  # an upgrade that was killed must not replace the good copy
        unfinished.rename(copy)
    unfinished.unlink(missing_ok=True)
    copies = sorted(
        source.parent.glob(f"{source.name}.before-*"), key=lambda file: file.stat().st_mtime
    )
    for outdated in copies[:-KEPT_COPIES]:
        outdated.unlink()
    return copy
