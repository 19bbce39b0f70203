"""`brushwork sweep`: moves files that are no longer used to the trash, and empties it."""

from __future__ import annotations

from argparse import Namespace

from app.cli.database import open_database, require_database
from app.registry.blobs import ownership, trash
from app.registry.blobs.sweep import ADOPT_COMMAND, SweepSummary, empty_trash, sweep
from app.registry.blobs.trash import Amount
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.wording import plural

REPORTED = 3  # exit code when nothing was taken because the files may not be this database's


def run(arguments: Namespace, settings: Settings) -> int:
    """Sweep and print the result.

    Return 3 if the files may belong to another database, so that nothing was deleted. Raises
    UnusableDatabase and StorageUnavailable.
    """
    require_database(settings)  # another version may refer to files in other places
    with open_database(settings) as database:
        store = open_store(settings.storage_url, settings.data_dir)
        if arguments.restore:
            print(_restore(store, dry_run=arguments.dry_run))
            return 0
        swept = _sweep(database, store, arguments)
    for line in lines(swept, arguments):
        print(line)
    return REPORTED if swept.report else 0


def _sweep(database: Database, store: BlobStore, arguments: Namespace) -> SweepSummary:
    if arguments.empty_trash:
        return empty_trash(database, store, dry_run=arguments.dry_run)
    if arguments.adopt:
        differs = ownership.check(database, store).sentence
        print(differs or "The files belong to this database already.")
    return sweep(database, store, dry_run=arguments.dry_run, adopt=arguments.adopt)


def _restore(store: BlobStore, *, dry_run: bool) -> str:
    found = trash.amount(store) if dry_run else trash.restore(store)
    if not found.files:
        return "The trash is empty."
    return f"{found.text} {'would come' if dry_run else 'came'} back from the trash."


def lines(swept: SweepSummary, arguments: Namespace) -> list[str]:
    """Sentences on what was done, or would be done in a dry run, and on the trash."""
    said = []
    if arguments.adopt and swept.found and not arguments.dry_run:
        said.append("They belong to this database now.")
    if not arguments.empty_trash:
        said.append(sentence(swept, dry_run=arguments.dry_run))
    if swept.brought_back:
        files = plural(swept.brought_back, "file")
        come = "would come" if arguments.dry_run else "came"
        said.append(f"{files} in the trash that rows refer to {come} back.")
    if swept.report and arguments.empty_trash:
        said.append(f"Nothing was deleted. {swept.report}")
    elif swept.emptied.files:
        verb = "would be deleted" if arguments.dry_run else "deleted"
        said.append(f"{swept.emptied.text} {verb} from the trash for good.")
    if swept.trash.files:
        said.append(
            f"In the trash: {swept.trash.text}, each for {trash.RETENTION.days} days. "
            "`brushwork sweep --empty-trash` deletes them now, `--restore` brings them back."
        )
    elif arguments.empty_trash and not swept.emptied.files:
        said.append("The trash is empty.")
    if swept.report:
        said.append(f"If this is the right database for these files, run `{ADOPT_COMMAND}`.")
    return said


def sentence(swept: SweepSummary, *, dry_run: bool) -> str:
    """A sentence on what went to the trash, or would go there."""
    taken = Amount(swept.files, swept.size_bytes).text
    if swept.report:
        would = f" A sweep would move {taken} to the trash." if swept.files else ""
        return f"Nothing was deleted. {swept.report}{would}"
    if not swept.files:
        return (
            "Nothing to delete. Every file is in use, newer than a day, or older than this "
            "database (so it may belong to another one)."
        )
    return f"{taken} would go to the trash." if dry_run else f"Moved {taken} to the trash."
