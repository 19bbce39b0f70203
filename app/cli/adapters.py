"""`brushwork adapters` and `brushwork export`: list adapters, and export them as files."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path

from app.cli.database import open_state
from app.registry.adapters import folders, service
from app.registry.adapters.service import AdapterSummary, Filter
from app.registry.blobs.report import report
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import NotReady
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.adapters import LATEST, AdapterFile
from worker.core.lora_files.file_names import file_name
from worker.core.words import FileFormat, WeightDtype

WRITE_SECONDS = 60.0
POLL_SECONDS = 0.2


def run(arguments: Namespace, settings: Settings) -> int:
    """List adapters or export one; return 1 if its file is damaged.

    Raises UnusableDatabase, NotFound and NotReady.
    """
    with open_state(settings) as state:
        try:
            if arguments.command == "adapters":
                print(*adapter_lines(state.database, words=arguments.words or ""), sep="\n")
            elif arguments.keep_in:
                print(keep(arguments, state))
            else:
                print(export(arguments, state))
        except (BlobNotFound, BlobDamaged) as error:
            print(report(state.database, error), file=sys.stderr)
            return 1
    return 0


def adapter_lines(database: Database, *, words: str) -> list[str]:
    """One line per adapter, newest first; a sentence if there is none."""
    lines: list[str] = []
    with database.read() as session:
        after: str | None = ""
        while after is not None:
            found = service.list_adapters(session, Filter(q=words, after=after))
            lines += [_adapter_line(row) for row in found.items]
            after = found.next
    return lines or ["No adapter matches." if words else "There are no adapters yet."]


def _adapter_line(row: AdapterSummary) -> str:
    trigger = ", ".join(row.adapter.trigger_words) or "-"
    mark = " (ruined)" if row.version.ruined else ""
    return (
        f"{row.adapter.slug:<32} v{row.version.version:<3} {row.adapter.base_family:<5} "
        f"rank {row.version.rank:<4} {trigger:<24} {row.adapter.name}{mark}"
    )


def keep(arguments: Namespace, state: AppState) -> str:
    """Order that an adapter is kept in a folder, or no longer; return a sentence."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, arguments.slug)
        version = arguments.version or LATEST
        if arguments.stop:
            kept = folders.remove(session, adapter.key, arguments.keep_in, version)
        else:
            kept = folders.keep(session, state.settings, adapter, arguments.keep_in, version)
        path = folders.require_folder(state.settings, arguments.keep_in) / kept.args.file
    return f"An io worker {'removes' if arguments.stop else 'keeps'} {path}."


def export(arguments: Namespace, state: AppState) -> Path:
    """Write the adapter's file to the given output; return its path."""
    file_format, dtype = FileFormat(arguments.format), WeightDtype(arguments.dtype)
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, arguments.slug)
        version = service.get_version(session, adapter, arguments.version)
        is_step = not adapter.is_listed
        name = file_name(adapter.slug, version.version, file_format, dtype, is_step=is_step)
    kind = ExportAdapterArgs(format=file_format, dtype=dtype)
    file = _wait_for_file(state.database, version.key, kind)
    target = arguments.output or Path(name)
    if target.is_dir():
        target = target / name
    unfinished = target.with_name(f"{target.name}.part")
    with state.store.open(file.sha256) as source, unfinished.open("wb") as out:
        shutil.copyfileobj(source, out)
    return unfinished.replace(target)


def _wait_for_file(database: Database, version_id: int, kind: ExportAdapterArgs) -> AdapterFile:
    """The finished file, which an io worker writes if it does not exist yet."""
    with database.read() as session:
        file = service.find_file(session, version_id, kind)
    if file is not None:
        return file
    with database.write() as session:
        order = service.order_file(session, version_id, kind)
    deadline = time.monotonic() + WRITE_SECONDS
    while time.monotonic() < deadline:
        with database.read() as session:
            file = service.find_file(session, version_id, kind)
            job = service.newest_order(session, version_id, kind)
        if file is not None:
            return file
        if job is not None and job.id == order.id and job.state is JobStatus.FAILED:
            raise NotReady(f"The file could not be written: {job.error}")
        time.sleep(POLL_SECONDS)
    raise NotReady(
        "No io worker wrote the file. Start Brushwork (`brushwork serve`), then try again."
    )
