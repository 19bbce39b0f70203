"""The io jobs that write downloads: registry metadata in, a checked file and its row out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session

from app.registry.adapters.downloads import facts_sha256, version_metadata, with_cover
from app.registry.adapters.service import find_file
from app.registry.adapters.versions.create_version import NewFile, add_file
from app.registry.code_version import code_version
from app.registry.job_kinds.kinds import ExportAdapterArgs, ExportAdapterResult, JobKind
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from worker.core.lora_files.errors import AdapterError
from worker.runtime.inspection.jobs import NoAnswerError, UnusableModelError, inspect_in_time
from worker.runtime.job_progress import IoWork, RefusedError, succeed
from worker.runtime.messages import Export, ExportFile


class UnfitError(RefusedError):
    """The file cannot be written correctly with the current code and metadata."""

    def __init__(self, code: str, sentence: str, facts_sha256: str) -> None:
        super().__init__(code, sentence)
        self.facts_sha256 = facts_sha256


def run(work: IoWork) -> None:
    """Write, check and store the file of a job. Raises RefusedError.

    It takes seconds, so a stopping worker finishes it first, unless its base does not answer.
    """
    args = work.job.arguments(ExportAdapterArgs)
    with work.cancelable():
        try:
            file = _write_file(work, work.subject_id, args, check=work.watch())
        except UnfitError as error:  # `refusals` reads it
            work.note(
                ExportAdapterResult(code_version=code_version(), facts_sha256=error.facts_sha256)
            )
            raise
        with work.database.write() as session:
            succeed(session, work.lease, ExportAdapterResult(sha256=file.sha256))
            add_file(session, work.subject_id, file)


def download(work: IoWork, version_id: int, kind: ExportAdapterArgs) -> NewFile:
    """The verified download of a version; writes it if it does not exist yet."""
    with work.database.read() as session:
        found = find_file(session, version_id, kind)
    if found is not None:
        return NewFile(**found.model_dump(include=set(NewFile.__dataclass_fields__)))
    file = _write_file(work, version_id, kind)
    with work.database.write() as session:
        add_file(session, version_id, file)
    return file


def _write_file(
    work: IoWork,
    version_id: int,
    kind: ExportAdapterArgs,
    *,
    check: Callable[[], None] = lambda: None,
) -> NewFile:
    # here, because it loads torch and diffusers, which an idle io worker goes without
    from worker.runtime.write_downloads import write_downloads

    with work.database.read() as session:
        version = session.get_one(AdapterVersion, version_id)
        metadata = version_metadata(session, version, with_tags=kind.with_tags)
        base = _base_of(session, version)
    said = facts_sha256(metadata)
    metadata = with_cover(metadata, work.store, work.scratch)
    path = work.scratch / f"download-{kind.format}-{kind.dtype}{kind.format.suffix}"
    file = ExportFile(kind.format, kind.dtype, path)
    canonical = work.store.local_path(version.sha256, work.scratch)
    where = base.location if base is not None else None
    if where is not None:
        _require_answer(where, check)
    try:
        (written,) = write_downloads(canonical, Export([file], metadata, where))
    except AdapterError as error:
        raise UnfitError("adapter", str(error), said) from error
    if written.problem:
        raise UnfitError("proof", written.problem, said)
    blob = work.store.put_file(written.path)
    return NewFile(
        **kind.model_dump(),
        sha256=blob.sha256,
        size_bytes=blob.size,
        proof=written.proof,
        facts_sha256=said,
    )


def _base_of(session: Session, version: AdapterVersion) -> BaseModel | None:
    return session.get(BaseModel, version.base_model_id) if version.base_model_id else None


def _require_answer(base: Path, check: Callable[[], None]) -> None:
    """Raise RefusedError if the base's folder does not answer: reading it here would never end."""
    try:
        inspect_in_time(JobKind.INSPECT_BASE, base, check=check)
    except NoAnswerError as error:
        raise RefusedError("base_model", str(error)) from error
    except UnusableModelError:  # the proof says what is wrong with it
        pass
