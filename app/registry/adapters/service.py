"""Operations on adapters: find, read, change, download, import, use, delete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, func, select

from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.library.cards import AdapterSummary as AdapterSummary
from app.registry.adapters.library.cards import samples_of_versions
from app.registry.adapters.library.cards import summarize as summarize
from app.registry.adapters.library.listing import ADAPTERS_A_PAGE as ADAPTERS_A_PAGE
from app.registry.adapters.library.listing import AdapterPage as AdapterPage
from app.registry.adapters.library.listing import Filter as Filter
from app.registry.adapters.library.listing import Sort as Sort
from app.registry.adapters.library.listing import list_adapters as list_adapters
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.aliases import ALIAS, NUMBER, newest_version
from app.registry.base_models.service import get_base_model
from app.registry.blobs import findings
from app.registry.db import utcnow
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import (
    LOSS_CODE,
    ExportAdapterArgs,
    ImportAdapterArgs,
    ImportAdapterResult,
    JobKind,
    StoredSidecar,
)
from app.registry.jobs.rights import require_edit
from app.registry.jobs.service import enqueue_io, get_io, request_cancel
from app.registry.slugs import id_of
from app.registry.tables.adapters import (
    LATEST,
    Adapter,
    AdapterAlias,
    AdapterFile,
    AdapterTag,
    AdapterVersion,
)
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run, Sample
from app.registry.validation import printable
from worker.core.words import FileFormat, WeightDtype

MAX_TAGS = 20
MAX_TAG_LENGTH = 40
USUAL_FILE = ExportAdapterArgs(format=FileFormat.KOHYA, dtype=WeightDtype.FP16)


def get_adapter(session: Session, reference: int | str) -> Adapter:
    """Look up an adapter by its id or slug. Raises NotFound, also if it was deleted."""
    return _not_deleted(session.get(Adapter, id_of(session, Adapter, reference)))


def adapter_by_slug(session: Session, slug: str) -> Adapter:
    """Look up an adapter by its slug. Raises NotFound, also if it was deleted."""
    return _not_deleted(session.exec(select(Adapter).where(Adapter.slug == slug)).first())


def _not_deleted(adapter: Adapter | None) -> Adapter:
    if adapter is None:
        raise NotFound("There is no such adapter; it may have been deleted.")
    if adapter.deleted_at is not None:
        raise NotFound(
            f"“{adapter.name}” was deleted. You can restore it on the page of deleted adapters "
            "(/adapters/deleted)."
        )
    return adapter


def require_listed(adapter: Adapter) -> Adapter:
    """The adapter, unless it holds the checkpoints of a run. Raises Conflict."""
    if not adapter.is_listed:
        raise Conflict(
            f"These are the checkpoints of run {adapter.run_id}, which cannot be changed here. On "
            f"its page (/runs/{adapter.run_id}) you can use one as an adapter, keep or delete it."
        )
    return adapter


def still_here(session: Session, adapter_ids: Iterable[int]) -> set[int]:
    """The ids of those adapters that exist and are not deleted."""
    query = select(Adapter.id).where(col(Adapter.deleted_at).is_(None))
    found = session.exec(query.where(col(Adapter.id).in_(set(adapter_ids))))
    return {key for key in found if key is not None}


def trigger_words_of(session: Session, adapter_ids: Iterable[int]) -> list[str]:
    """The trigger words of these adapters together."""
    words = session.exec(select(Adapter.trigger_words).where(col(Adapter.id).in_(set(adapter_ids))))
    return [word for each in words for word in each]


def summary(session: Session, adapter: Adapter) -> AdapterSummary:
    """The summary of one adapter."""
    return summarize(session, [adapter])[0]


def list_versions(
    session: Session, adapter_id: int, *, limit: int | None = None, before: int | None = None
) -> list[AdapterVersion]:
    """The versions of an adapter, newest first; at most `limit`, with numbers below `before`."""
    query = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter_id)
    if before is not None:
        query = query.where(AdapterVersion.version < before)
    return list(session.exec(query.order_by(col(AdapterVersion.version).desc()).limit(limit)))


def versions_by_number(
    session: Session, adapter_id: int, numbers: Iterable[int]
) -> list[AdapterVersion]:
    """The versions of an adapter with these numbers, in no particular order."""
    query = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter_id)
    return list(session.exec(query.where(col(AdapterVersion.version).in_(set(numbers)))))


def count_versions(session: Session, adapter_id: int) -> int:
    """Number of versions of an adapter."""
    query = select(func.count()).select_from(AdapterVersion)
    return session.exec(query.where(AdapterVersion.adapter_id == adapter_id)).one()


def get_version(
    session: Session, adapter: Adapter, version: int | str | None = None
) -> AdapterVersion:
    """A version of an adapter by its number or alias; None means `latest`. Raises NotFound."""
    of_adapter = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter.key)
    name = LATEST if version is None else str(version).strip().lower()
    row = None
    if number := NUMBER.fullmatch(name):
        row = session.exec(of_adapter.where(AdapterVersion.version == int(number[1]))).first()
    elif ALIAS.fullmatch(name):
        alias = session.get(AdapterAlias, (adapter.key, name))
        row = session.get(AdapterVersion, alias.version_id) if alias else None
        if row is None and name == LATEST:
            row = newest_version(session, adapter.key)
    if row is not None:
        return row
    if number:
        what = adapter.version_label(int(number[1]))
        raise NotFound(f"“{adapter.name}” has no {what}; it may have been deleted.")
    raise NotFound(
        f"“{adapter.name}” has no version “{name[:40]}”. Use a number or one of its aliases."
    )


def imported_adapter(session: Session, job: IoJob) -> Adapter | None:
    """The adapter created by an import; None if it does not exist (yet)."""
    return session.get(Adapter, job.outcome(ImportAdapterResult).adapter_id or 0)


def trained_version(session: Session, run: Run) -> tuple[Adapter, AdapterVersion] | None:
    """The adapter and version created by a run; None if they do not exist (yet)."""
    version = session.get(AdapterVersion, run.adapter_version_id or 0)
    adapter = session.get(Adapter, version.adapter_id) if version else None
    return (adapter, version) if adapter and version else None


def version_run(session: Session, version: AdapterVersion) -> Run | None:
    """The run that trained a version; None if it was imported."""
    return session.get(Run, version.run_id) if version.run_id else None


def version_base(session: Session, version: AdapterVersion) -> BaseModel | None:
    """The base model of a version, if known."""
    return session.get(BaseModel, version.base_model_id) if version.base_model_id else None


def version_samples(session: Session, version: AdapterVersion) -> list[Sample]:
    """The samples of the run that trained a version, at its step or the last sampled before."""
    return samples_of_versions(session, [version.key]).get(version.key, [])


@dataclass(frozen=True)
class AdapterChange:
    """Changes to an adapter; None leaves a value unchanged."""

    name: str | None = None
    notes: str | None = None
    license: str | None = None
    starred: bool | None = None
    trigger_words: list[str] | None = None
    tags: list[str] | None = None


def change_adapter(session: Session, adapter_id: int, change: AdapterChange) -> Adapter:
    """Change the metadata of an adapter; its versions never change.

    If the default download of the version in use contains changed metadata, it is written again in
    the background, so that the next user need not wait.
    """
    adapter = require_listed(get_adapter(session, adapter_id))
    with renewed_download(session, adapter):
        for field in ("name", "notes", "license", "starred", "trigger_words"):
            value = getattr(change, field)
            if value is not None:
                setattr(adapter, field, _printable_value(value))
        if change.tags is not None:
            _set_tags(session, adapter.key, change.tags)
    return adapter


@contextlib.contextmanager
def renewed_download(
    session: Session, adapter: Adapter, version: AdapterVersion | None = None
) -> Iterator[None]:
    """Order the default download of a version again if a change made inside is part of it.

    Without a version, that of the one in use.
    """
    version_id = (version or get_version(session, adapter)).key
    was_written = find_file(session, version_id) is not None
    yield
    session.add(adapter)
    session.flush()
    if was_written and find_file(session, version_id) is None:
        order_file(session, version_id)


def _printable_value(value: Any) -> Any:
    """The text, or list of texts, without control characters, which cannot be stored."""
    if isinstance(value, list):
        return [_printable_value(item) for item in value]
    if not isinstance(value, str):
        return value
    return printable(value)


def _set_tags(session: Session, adapter_id: int, tags: Sequence[str]) -> None:
    new = {tag for tag in (_printable_value(tag).strip().lower() for tag in tags) if tag}
    if len(new) > MAX_TAGS or any(len(tag) > MAX_TAG_LENGTH for tag in new):
        sentence = f"Use at most {MAX_TAGS} tags of at most {MAX_TAG_LENGTH} characters each."
        raise InvalidInput(sentence, fields={"tags": sentence})
    present = {
        row.tag: row
        for row in session.exec(select(AdapterTag).where(AdapterTag.adapter_id == adapter_id))
    }
    for tag in new - present.keys():
        session.add(AdapterTag(adapter_id=adapter_id, tag=tag))
    for tag in present.keys() - new:
        session.delete(present[tag])


def delete_adapter(session: Session, adapter_id: int) -> Adapter:
    """Delete an adapter; everything is kept until it is deleted permanently."""
    adapter = require_listed(get_adapter(session, adapter_id))
    adapter.deleted_at = utcnow()
    session.add(adapter)
    return adapter


def find_file(
    session: Session, version_id: int, kind: ExportAdapterArgs = USUAL_FILE
) -> AdapterFile | None:
    """The verified download, if it exists undamaged with current metadata."""
    query = select(AdapterFile).filter_by(version_id=version_id, **kind.model_dump())
    found = session.exec(query).first()
    if found is None or not found.proof or findings.problems(session, [found.sha256]):
        return None
    version = session.get_one(AdapterVersion, version_id)
    metadata = version_metadata(session, version, with_tags=kind.with_tags)
    return found if found.facts_sha256 == facts_sha256(metadata) else None


def version_files(session: Session, version_id: int) -> list[AdapterFile]:
    """All downloads of a version that exist."""
    return list(session.exec(select(AdapterFile).where(AdapterFile.version_id == version_id)))


def download_bytes(session: Session, version: AdapterVersion) -> int | None:
    """The size of the default download (kohya, fp16); None if it does not exist yet."""
    usual = (FileFormat.KOHYA, WeightDtype.FP16, False)
    files = version_files(session, version.key)
    sizes = {(file.format, file.dtype, file.with_tags): file.size_bytes for file in files}
    return sizes.get(usual)


def newest_order(
    session: Session, version_id: int, kind: ExportAdapterArgs = USUAL_FILE
) -> IoJob | None:
    """The newest export job for this download, if any."""
    orders = select(IoJob).where(
        IoJob.kind == JobKind.EXPORT_ADAPTER, IoJob.subject_id == version_id
    )
    for job in session.exec(orders.order_by(col(IoJob.id).desc())):
        if job.readable_arguments() == kind:
            return job
    return None


def order_file(session: Session, version_id: int, kind: ExportAdapterArgs = USUAL_FILE) -> IoJob:
    """The queued or running export job for a download; creates one if needed."""
    job = newest_order(session, version_id, kind)
    if job is not None and job.state.is_active:
        return job
    return enqueue_io(session, kind, subject_id=version_id)


def order_import(
    session: Session,
    *,
    sha256: str,
    filename: str,
    adapter_id: int | None = None,
    base_model_id: int | None = None,
    sidecars: Sequence[StoredSidecar] = (),
    allow_loss: bool = False,
) -> IoJob:
    """An io job that checks an uploaded LoRA file and makes an adapter of it.

    With `adapter_id` it becomes the next version of that adapter, with `base_model_id` it has to
    fit that base; both have to exist. `allow_loss`: what a LoRA cannot contain may be lost.
    """
    adapter = None if adapter_id is None else get_adapter(session, adapter_id)
    if adapter is not None:
        require_edit(session, adapter)
    args = ImportAdapterArgs(
        sha256=sha256,
        filename=filename,
        adapter_id=None if adapter is None else adapter.key,
        base_model_id=None if base_model_id is None else get_base_model(session, base_model_id).key,
        sidecars=tuple(sidecars),
        allow_loss=allow_loss,
    )
    return enqueue_io(session, args)


def allow_import_loss(session: Session, job_id: int) -> IoJob:
    """Order an import again that was refused over its loss. Raises Conflict for any other."""
    job = get_import(session, job_id)
    if job.error_code != LOSS_CODE:
        raise Conflict("This import does not wait for your consent.")
    args = job.arguments(ImportAdapterArgs)
    return enqueue_io(session, args.model_copy(update={"allow_loss": True}))


def get_import(session: Session, job_id: int) -> IoJob:
    """Look up an import job. Raises NotFound."""
    return get_io(session, job_id, "import", JobKind.IMPORT_ADAPTER)


def cancel_import(session: Session, job_id: int) -> IoJob:
    """Cancel the import of a LoRA file. Raises Conflict if it has ended."""
    job = get_import(session, job_id)
    request_cancel(session, IoJob, job)
    return job


@dataclass(frozen=True)
class UsedVersion:
    """The version that is in use now; `before`: the one that was, None if there was none."""

    adapter: Adapter
    version: AdapterVersion
    before: AdapterVersion | None

    @property
    def undo(self) -> int | None:
        """Number of the version to use again to undo this; None if nothing changed."""
        is_other = self.before is not None and self.before.key != self.version.key
        return self.before.version if self.before and is_other else None


def use_version(session: Session, adapter_id: int, reference: int | str) -> UsedVersion:
    """Point `latest` to a version, given by its number or an alias.

    A cover that is a sample of the version in use before becomes the first sample of this one.
    Raises NotFound, and Conflict for the checkpoints of a run.
    """
    session.exec(select(Adapter).where(Adapter.id == adapter_id).with_for_update()).first()
    adapter = require_listed(get_adapter(session, adapter_id))
    version = get_version(session, adapter, reference)
    before = get_version(session, adapter)
    samples = version_samples(session, version)
    covers = [row.sha256 for row in version_samples(session, before)]
    with renewed_download(session, adapter, version):
        if samples and before.key != version.key and adapter.cover_sha256 in covers:
            adapter.cover_sha256 = samples[0].sha256
        aliases.point(session, version, LATEST)
    return UsedVersion(adapter, version, before)


def set_alias(session: Session, version: AdapterVersion, alias: str) -> str:
    """Point an alias to this version, also `latest`; return it as stored."""
    if aliases.read_alias(alias) != LATEST:
        return aliases.set_alias(session, version, alias)
    use_version(session, version.adapter_id, version.version)
    return LATEST
