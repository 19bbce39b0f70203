"""`brushwork verify`: reads every stored file, and lists the damaged and missing ones."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.cli.database import open_database, require_database
from app.cli.progress_line import progress_line
from app.registry.blobs.check import StoreCheck
from app.registry.blobs.report import bad_files, summary
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.wording import plural, size_text


def run(arguments: Namespace, settings: Settings) -> int:
    """Check the files; return 1 if some are damaged or missing.

    Raises UnusableDatabase and StorageUnavailable.
    """
    require_database(settings)  # another version may refer to files in other places
    with open_database(settings) as database:
        store = open_store(settings.storage_url, settings.data_dir)
        return verify_store(database, store, reads=store.is_local or arguments.full)


def verify_store(database: Database, store: BlobStore, *, reads: bool) -> int:
    """Check every file, and print what is damaged or missing; return the exit code.

    `reads`: read all of them; otherwise only those whose presence or size is suspicious.
    """
    with progress_line(in_logs=False) as show:
        check = StoreCheck(
            database, store, on_chunk=lambda _: show(f"{size_text(check.bytes_read)} read")
        )
        stored = check.find_missing()
        check.read(list(stored) if reads else check.suspects)
    with database.read() as session:
        bad = [file for file in bad_files(session) if file.sha256 in check.problems]
    check.order_thumbnails()
    for file in bad:
        print(file.line)
    looked_at = f"{plural(len(stored), 'file')}, {size_text(sum(stored.values()))}"
    how = "read" if reads else "present, by size; --full reads them"
    if not bad:
        print(f"All files are sound ({looked_at}, {how}).")
        return 0
    print(
        f"{summary(bad)} ({looked_at}, {how}). Restore these from a backup, or make or upload them "
        "again; then run this again.",
        file=sys.stderr,
    )
    return 1
