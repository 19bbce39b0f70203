"""`brushwork sweep`: takes away the files that nobody refers to any more."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.migrate import is_current
from app.registry.storage import open_store
from app.registry.storage.store import StorageUnavailable
from app.registry.sweep import Swept, sweep
from app.registry.wording import plural, size_text


def run(arguments: Namespace, settings: Settings) -> int:
    """Sweep, and print how much went; 1 when database or storage cannot be used."""
    database = Database(make_engine(settings.sqlalchemy_url))
    try:
        if not is_current(database.engine):
            # tables of another version may refer to files in a way that is not known here
            print("The database is of another version. Run `brushwork migrate`.", file=sys.stderr)
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


def sentence(swept: Swept, *, dry_run: bool) -> str:
    """What went or would go, in words."""
    if not swept.files:
        return (
            "Nothing to sweep: every file is referred to, is not a day old yet, or is older than "
            "the database, so that it may be another's."
        )
    freed = f"{plural(swept.files, 'file')}, {size_text(swept.size_bytes)}"
    return f"{freed}, would go." if dry_run else f"{freed}, went."
