"""Adapters that are kept in the LoRA folders of other programs, and what else is in these folders.

The newest job for a version and a folder is the memory that it is kept there; the next replaces it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.adapters.imports import ReceivedFile, name_of_path, receive_path
from app.registry.adapters.service import find_file, get_version, require_listed
from app.registry.adapters.versions.aliases import NUMBER
from app.registry.config import Settings
from app.registry.db import Database, database_now
from app.registry.errors import AppError, Conflict, InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.kinds import (
    ExportAdapterArgs,
    JobKind,
    KeepInFolderArgs,
    KeepInFolderResult,
)
from app.registry.job_kinds.states import ACTIVE, JobStatus
from app.registry.jobs.service import enqueue_io
from app.registry.state import AppState
from app.registry.tables.adapters import LATEST, Adapter
from app.registry.tables.jobs import IoJob
from app.registry.wording import aware
from worker.core.words import FileFormat, WeightDtype

WEIGHTS = ".safetensors"
WRITTEN = ExportAdapterArgs(format=FileFormat.BUNDLE, dtype=WeightDtype.FP16)
IN_THE_WAY = "file_in_the_way"  # error of a job that found a file of somebody else
RETRY_AFTER = timedelta(minutes=10)
RETRY_OTHERS_AFTER = timedelta(days=1)  # what failed for another reason than the folder
MAX_FILES = 1_000  # of a folder that are looked at


class FolderUnusable(AppError, status=409, title="A folder cannot be used", code="folder"):
    """A folder of another program is missing, read-only or full."""


@dataclass(frozen=True)
class KeptAdapter:
    """A version, or what an alias points to, in a folder; `job` writes or wrote it.

    `adapter`: None once it is deleted for good.
    """

    adapter: Adapter | None
    job: IoJob

    @property
    def args(self) -> KeepInFolderArgs:
        """The folder, the version or alias, and the name of the file."""
        return self.job.arguments(KeepInFolderArgs)

    @property
    def result(self) -> KeepInFolderResult:
        """The version that was written, once it was."""
        return self.job.outcome(KeepInFolderResult)


def list_kept(session: Session, folder: str) -> list[KeptAdapter]:
    """The adapters that are kept in this folder, those not yet removed included."""
    query = select(IoJob, Adapter).outerjoin(Adapter, col(Adapter.id) == col(IoJob.subject_id))
    query = query.where(IoJob.kind == JobKind.KEEP_IN_FOLDER).order_by(col(IoJob.id))
    kept = [KeptAdapter(adapter, job) for job, adapter in session.exec(query)]
    return [
        row
        for row in kept
        if row.job.readable_arguments() is not None
        and row.args.folder == folder
        and not (row.args.removes and row.job.state is JobStatus.SUCCEEDED)
    ]


def keep(
    session: Session, settings: Settings, adapter: Adapter, folder: str, version: str = LATEST
) -> KeptAdapter:
    """Keep a version in a folder of the settings; what an alias points to is kept up to date.

    Raises InvalidInput, NotFound and Conflict.
    """
    require_folder(settings, folder)
    name = _read_name(version)
    get_version(session, require_listed(adapter), name)
    file = adapter.slug + ("" if name == LATEST else f"_{name}") + WEIGHTS
    args = KeepInFolderArgs(folder=folder, version=name, file=file)
    return KeptAdapter(adapter, _order(session, adapter.key, args))


def remove(session: Session, adapter_id: int, folder: str, version: str) -> KeptAdapter:
    """Keep a version in a folder no longer: its files are removed, also of a deleted adapter.

    Raises NotFound and Conflict.
    """
    named = (adapter_id, _read_name(version))
    for kept in list_kept(session, folder):
        if (kept.job.subject_id, kept.args.version) == named:
            args = kept.args.model_copy(update={"removes": True})
            return KeptAdapter(kept.adapter, _order(session, adapter_id, args))
    raise NotFound("This is not kept in this folder; it may have been removed already.")


def _read_name(version: str) -> str:
    """The name of a version or alias as it is stored: `v2`, `latest`."""
    name = version.strip().lower() or LATEST
    number = NUMBER.fullmatch(name)
    return f"v{number[1]}" if number else name


def _order(session: Session, adapter_id: int, args: KeepInFolderArgs) -> IoJob:
    """The job that writes or removes a file, in place of the one before."""
    session.get(Adapter, adapter_id, with_for_update=True)  # nobody else orders it meanwhile
    hashes: set[str] = set()
    for kept in list_kept(session, args.folder):
        if (kept.job.subject_id, kept.args.version) != (adapter_id, args.version):
            continue
        if kept.job.state.is_active:
            if kept.args.removes == args.removes:
                return kept.job
            raise Conflict("This file is being written. Try again in a moment.")
        hashes |= {*kept.args.hashes, *kept.result.hashes}
        session.delete(kept.job)
    args = args.model_copy(update={"hashes": tuple(sorted(hashes))})
    return enqueue_io(session, args, subject_id=adapter_id)


def order_due(settings: Settings, database: Database) -> None:
    """Order again what is out of date, and what failed some minutes ago.

    Nothing is ordered for a folder that is away or read-only, or has no room.
    """
    for folder, path in settings.export_folder_paths.items():
        try:
            room = shutil.disk_usage(path).free if os.access(path, os.W_OK) else 0
        except OSError:
            continue
        with database.read() as session:
            due = [kept for kept in list_kept(session, folder) if _is_due(session, kept, room)]
        for kept in due:
            if kept.job.error_code == IN_THE_WAY and os.path.lexists(path / kept.args.file):
                continue
            # somebody may have ordered it meanwhile
            with suppress(Conflict), database.write() as session:
                _order(session, kept.job.subject_id or 0, kept.args)


def _is_due(session: Session, kept: KeptAdapter, room: int) -> bool:
    job, args = kept.job, kept.args
    if job.state is JobStatus.FAILED and job.finished_at:
        is_folder = job.error_code in (FolderUnusable.code, IN_THE_WAY)
        wait = RETRY_AFTER if is_folder else RETRY_OTHERS_AFTER
        if aware(job.finished_at) > database_now(session) - wait:
            return False
    elif job.state is not JobStatus.SUCCEEDED:
        return False
    if args.removes:
        return True
    if kept.adapter is None or kept.adapter.deleted_at:
        return False
    try:
        version = get_version(session, kept.adapter, args.version)
    except NotFound:
        return False  # the alias is gone: what was written stays
    file = find_file(session, version.key, WRITTEN)
    is_old = file is None or file.sha256 != kept.result.sha256
    return room > version.size_bytes and (is_old or job.state is JobStatus.FAILED)


def require_folder(settings: Settings, folder: str) -> Path:
    """The path of a folder in the settings. Raises InvalidInput."""
    path = settings.export_folder_paths.get(folder)
    if path is None:
        sentence = f"BRUSHWORK_EXPORT_FOLDERS names no folder of “{folder[:40]}”."
        raise InvalidInput(sentence, fields={"folder": sentence})
    return path


@contextmanager
def explained(folder: str, path: Path) -> Iterator[None]:
    """Errors of the system in a folder as a sentence; one that is missing is not created.

    Raises FolderUnusable.
    """
    try:
        next(path.iterdir(), None)
        yield
    except OSError as error:
        raise FolderUnusable(
            f"The folder of {folder}, {path}, cannot be used: {error.strerror}. "
            "This goes on by itself once it can."
        ) from error


def other_files(session: Session, settings: Settings, folder: str) -> list[str]:
    """The LoRA files in a folder, by relative path, that are not kept there nor were imported.

    Links and what is behind them are left out. Raises InvalidInput and FolderUnusable.
    """
    path = require_folder(settings, folder)
    with explained(folder, path):
        files = islice(path.rglob(f"*{WEIGHTS}"), MAX_FILES)
        found = sorted(file for file in files if file.is_file() and not file.is_symlink())
    names = {file: name_of_path(file) for file in found}
    imported = col(IoJob.args)["filename"].as_string()
    here = select(imported).where(IoJob.kind == JobKind.IMPORT_ADAPTER)
    here = here.where(col(IoJob.status).in_([*ACTIVE, JobStatus.SUCCEEDED]))
    known = set(session.exec(here.where(imported.in_(set(names.values())))))
    known |= {kept.args.file for kept in list_kept(session, folder)}
    return [file.relative_to(path).as_posix() for file in found if names[file] not in known]


def import_files(state: AppState, folder: str, names: Sequence[str]) -> list[ReceivedFile]:
    """Import files that `other_files` lists. Raises InvalidInput for any other name."""
    with state.database.read() as session:
        offered = other_files(session, state.settings, folder)
    if not names or not set(names) <= set(offered):
        raise invalid_field("files", "Choose files of this folder that are not here yet.")
    path = require_folder(state.settings, folder)
    return [row for name in names for row in receive_path(state, path / name)]
