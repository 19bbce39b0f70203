"""Adapters that are kept in the LoRA folders of other programs, and what else is in these folders.

The newest job for a version and a folder is the memory that it is kept there; the next replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.adapters.imports import ReceivedFile, receive_path
from app.registry.adapters.service import find_file, get_version, require_listed
from app.registry.adapters.versions.aliases import NUMBER
from app.registry.config import Settings
from app.registry.db import Database, database_now
from app.registry.errors import AppError, Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import JobKind, KeepInFolderArgs, KeepInFolderResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue_io
from app.registry.state import AppState
from app.registry.tables.adapters import LATEST, Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.wording import aware
from worker.core.words import FileFormat, WeightDtype

WEIGHTS = ".safetensors"
RETRY_AFTER = timedelta(minutes=10)
MAX_FILES = 1_000  # of a folder that are looked at


class FolderUnusable(AppError):
    """A folder of another program is missing, read-only or full."""

    status = 409
    title = "A folder cannot be used"
    code = "folder"


@dataclass(frozen=True)
class KeptAdapter:
    """A version, or what an alias points to, in a folder; `job` writes or wrote it."""

    adapter: Adapter
    job: IoJob

    @property
    def args(self) -> KeepInFolderArgs:
        """The folder and the version or alias."""
        return self.job.arguments(KeepInFolderArgs)

    @property
    def result(self) -> KeepInFolderResult:
        """The version that was written, once it was."""
        return self.job.outcome(KeepInFolderResult)

    @property
    def file(self) -> str:
        """The name of its weights there: `chalk` for the version in use, else `chalk_best`."""
        version = self.args.version
        return self.adapter.slug + ("" if version == LATEST else f"_{version}") + WEIGHTS


def list_kept(session: Session, folder: str | None = None) -> list[KeptAdapter]:
    """The adapters that are kept in this folder or in all, those not yet removed included."""
    query = select(Adapter, IoJob).join(IoJob, col(IoJob.subject_id) == col(Adapter.id))
    query = query.where(IoJob.kind == JobKind.KEEP_IN_FOLDER).order_by(Adapter.slug, col(IoJob.id))
    kept = [KeptAdapter(adapter, job) for adapter, job in session.exec(query)]
    return [
        row
        for row in kept
        if row.job.readable_arguments() is not None
        and folder in (None, row.args.folder)
        and not (row.args.removes and row.job.state is JobStatus.SUCCEEDED)
    ]


def keep(
    session: Session,
    settings: Settings,
    adapter: Adapter,
    folder: str,
    version: str = LATEST,
    *,
    removes: bool = False,
) -> KeptAdapter:
    """Keep a version in a folder of the settings, or no longer: its files are then removed.

    What an alias points to is kept up to date. Raises InvalidInput, NotFound and Conflict.
    """
    require_folder(settings, folder)
    name = version.strip().lower() or LATEST
    if number := NUMBER.fullmatch(name):
        name = f"v{number[1]}"
    if not removes:
        get_version(session, require_listed(adapter), name)
    elif not any(
        (kept.adapter.key, kept.args.version) == (adapter.key, name)
        for kept in list_kept(session, folder)
    ):
        raise NotFound("This is not kept in this folder; it may have been removed already.")
    return KeptAdapter(adapter, _order(session, adapter.key, folder, name, removes=removes))


def _order(
    session: Session, adapter_id: int, folder: str, version: str, *, removes: bool = False
) -> IoJob:
    session.get(Adapter, adapter_id, with_for_update=True)  # nobody else orders it meanwhile
    hashes: set[str] = set()
    mine = select(IoJob).where(IoJob.kind == JobKind.KEEP_IN_FOLDER, IoJob.subject_id == adapter_id)
    for job in session.exec(mine):
        args = job.readable_arguments()
        if not isinstance(args, KeepInFolderArgs):
            continue  # damaged
        if (args.folder, args.version) != (folder, version):
            continue
        if job.state.is_active and args.removes == removes:
            return job
        if job.state.is_active:
            raise Conflict("This file is being written. Try again in a moment.")
        hashes |= {*args.hashes, *job.outcome(KeepInFolderResult).hashes}
        session.delete(job)
    args = KeepInFolderArgs(
        folder=folder, version=version, removes=removes, hashes=tuple(sorted(hashes))
    )
    return enqueue_io(session, args, subject_id=adapter_id)


def order_due(database: Database) -> None:
    """Order again what is out of date, and what failed some minutes ago."""
    with database.read() as session:
        due = [kept for kept in list_kept(session) if _is_due(session, kept)]
    for kept in due:
        args = kept.args
        # somebody may have ordered it meanwhile
        with suppress(Conflict), database.write() as session:
            _order(session, kept.adapter.key, args.folder, args.version, removes=args.removes)


def _is_due(session: Session, kept: KeptAdapter) -> bool:
    job = kept.job
    if kept.adapter.deleted_at and not kept.args.removes:
        return False
    if job.state is JobStatus.FAILED and job.finished_at:
        return aware(job.finished_at) < database_now(session) - RETRY_AFTER
    if job.state is not JobStatus.SUCCEEDED:
        return False
    try:
        version = get_version(session, kept.adapter, kept.args.version)
    except NotFound:
        return False  # the alias is gone: what was written stays
    file = find_file(session, version.key, FileFormat.BUNDLE, WeightDtype.FP16)
    return file is None or file.sha256 != kept.result.sha256


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
            "It is tried again every ten minutes."
        ) from error


def other_files(session: Session, settings: Settings, folder: str) -> list[str]:
    """The LoRA files in a folder, by relative path, that are not kept there nor were imported.

    Links and what is behind them are left out. Raises InvalidInput and FolderUnusable.
    """
    path = require_folder(settings, folder)
    with explained(folder, path):
        files = islice(path.rglob(f"*{WEIGHTS}"), MAX_FILES)
        found = sorted(file for file in files if file.is_file() and not file.is_symlink())
    imported = col(AdapterVersion.details)["imported"].as_string()
    names = [file.name for file in found]
    known = set(session.exec(select(imported).where(imported.in_(names))))
    known |= {kept.file for kept in list_kept(session, folder)}
    return [file.relative_to(path).as_posix() for file in found if file.name not in known]


def import_files(state: AppState, folder: str, names: Sequence[str]) -> list[ReceivedFile]:
    """Import files that `other_files` lists. Raises InvalidInput for any other name."""
    with state.database.read() as session:
        offered = other_files(session, state.settings, folder)
    if not names or not set(names) <= set(offered):
        sentence = "Choose files of this folder that are not here yet."
        raise InvalidInput(sentence, fields={"files": sentence})
    path = require_folder(state.settings, folder)
    return [row for name in names for row in receive_path(state, path / name)]
