"""`brushwork sweep`: deletes files that are no longer used."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.migrate import is_current
from app.registry.storage import open_store
from app.registry.storage.store import StorageUnavailable
from app.registry.sweep import SweepSummary, sweep
from app.registry.wording import plural, size_text


def run(arguments: Namespace, settings: Settings) -> int:
    """Sweep and print the result; return 1 if the database or storage cannot be used."""
    database = Database(make_engine(settings.sqlalchemy_url))
    try:
        if not is_current(database.engine):
            # tables of another version may contain unknown references to files
            print(
                "The database belongs to another version. Run `brushwork migrate` first.",
                file=sys.stderr,
            )
            return 1
        store = open_store(settings.storage_url, settings.data_dir)
        swept = sweep(database, store, dry_run=arguments.dry_run)
    except StorageUnavailable as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        database.dispose()
    print(sentence(swept, dry_run=arguments.dry_run))
    return 0


def sentence(swept: SweepSummary, *, dry_run: bool) -> str:
    """A sentence on what was or would be deleted."""
    if not swept.files:
        return (
            "Nothing to delete. Every file is in use, newer than a day, or older than this "
            "database (so it may belong to another one)."
        )
    freed = f"{plural(swept.files, 'file')}, {size_text(swept.size_bytes)}"
    return f"{freed} would be deleted." if dry_run else f"Deleted {freed}."
