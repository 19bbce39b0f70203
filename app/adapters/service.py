"""What can be done with adapters: find, read, change, download, import, put away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, String, cast
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app.adapters.models import Adapter, AdapterAlias, AdapterFile, AdapterTag, AdapterVersion
from app.base_models.models import BaseModel
from app.base_models.service import get_base_model
from app.datasets.models import Dataset, DatasetVersion
from app.db import utcnow
from app.errors import InvalidInput, NotFound
from app.jobs.models import IoJob
from app.jobs.service import enqueue_io
from app.runs.models import Run, Sample

ADAPTERS_A_PAGE = 24
MAX_TAGS = 20
MAX_TAG_LENGTH = 40


class DownloadFormat(StrEnum):
    """The files an adapter can be downloaded as."""

    KOHYA = "kohya"
    PEFT = "peft"
    BUNDLE = "bundle"


class DownloadDtype(StrEnum):
    """The number format of the tensors in a download."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class Sort(StrEnum):
    """Orders of the list of adapters."""

    NEWEST = "newest"
    OLDEST = "oldest"
    NAME = "name"


@dataclass(frozen=True)
class Filter:
    """What the list of adapters should show; all of it lives in the address."""

    q: str = ""
    base: str = ""
    tag: str = ""
    starred: bool = False
    sort: Sort = Sort.NEWEST
    page: int = 1


@dataclass(frozen=True)
class AdapterSummary:
    """An adapter as a card or an API answer shows it."""

    adapter: Adapter
    version: AdapterVersion
    version_count: int
    tags: list[str]
    covers: list[str]


@dataclass(frozen=True)
class AdapterPage:
    """One page of the list, with how many there are in all and of each base family."""

    items: list[AdapterSummary]
    total: int
    pages: int
    families: dict[str, int]
    starred: int


def list_adapters(session: Session, wanted: Filter) -> AdapterPage:
    """The adapters this filter admits."""
    query = select(Adapter).where(col(Adapter.deleted_at).is_(None))
    if wanted.q:
        words = f"%{_escaped(wanted.q)}%"
        tagged = select(AdapterTag.adapter_id).where(col(AdapterTag.tag).ilike(words, escape="\\"))
        query = query.where(
            col(Adapter.name).ilike(words, escape="\\")
            | col(Adapter.notes).ilike(words, escape="\\")
            | col(Adapter.slug).ilike(words, escape="\\")
            | _trigger_text().ilike(words, escape="\\")
            | col(Adapter.id).in_(tagged)
        )
    if wanted.tag:
        with_tag = select(AdapterTag.adapter_id).where(AdapterTag.tag == wanted.tag)
        query = query.where(col(Adapter.id).in_(with_tag))
    families = _count_by_family(session, query)
    starred = _count(session, query.where(col(Adapter.starred)))
    if wanted.base:
        query = query.where(Adapter.base_family == wanted.base)
    if wanted.starred:
        query = query.where(col(Adapter.starred))
    total = _count(session, query)
    order = {
        Sort.NEWEST: (col(Adapter.updated_at).desc(), col(Adapter.id).desc()),
        Sort.OLDEST: (col(Adapter.updated_at), col(Adapter.id)),
        Sort.NAME: (func.lower(col(Adapter.name)), col(Adapter.id)),
    }[wanted.sort]
    rows = session.exec(
        query.order_by(*order).offset((wanted.page - 1) * ADAPTERS_A_PAGE).limit(ADAPTERS_A_PAGE)
    ).all()
    pages = max(1, -(-total // ADAPTERS_A_PAGE))
    return AdapterPage(summarize(session, rows), total, pages, families, starred)


def _count(session: Session, query: SelectOfScalar[Adapter]) -> int:
    return session.exec(select(func.count()).select_from(query.subquery())).one()


def _count_by_family(session: Session, query: SelectOfScalar[Adapter]) -> dict[str, int]:
    families = query.subquery().c.base_family
    return dict(session.exec(select(families, func.count()).group_by(families)).all())


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _trigger_text() -> ColumnElement[str]:
    return cast(col(Adapter.trigger_words), String)


def summarize(session: Session, adapters: Sequence[Adapter]) -> list[AdapterSummary]:
    """The newest version, tags and covers of these adapters, in a few queries."""
    keys = [adapter.key for adapter in adapters]
    latest: dict[int, AdapterVersion] = {}
    counts: dict[int, int] = {}
    for version in session.exec(
        select(AdapterVersion)
        .where(col(AdapterVersion.adapter_id).in_(keys))
        .order_by(col(AdapterVersion.version))
    ):
        latest[version.adapter_id] = version
        counts[version.adapter_id] = counts.get(version.adapter_id, 0) + 1
    tags: dict[int, list[str]] = {}
    for row in session.exec(
        select(AdapterTag).where(col(AdapterTag.adapter_id).in_(keys)).order_by(AdapterTag.tag)
    ):
        tags.setdefault(row.adapter_id, []).append(row.tag)
    covers = _covers(session, adapters, latest)
    return [
        AdapterSummary(
            adapter,
            latest[adapter.key],
            counts[adapter.key],
            tags.get(adapter.key, []),
            covers.get(adapter.key, []),
        )
        for adapter in adapters
        if adapter.key in latest
    ]


def _covers(
    session: Session, adapters: Sequence[Adapter], latest: Mapping[int, AdapterVersion]
) -> dict[int, list[str]]:
    runs = {version.run_id: key for key, version in latest.items() if version.run_id}
    last_step = dict(
        session.exec(
            select(Sample.run_id, func.max(Sample.step))
            .where(col(Sample.run_id).in_(runs))
            .group_by(col(Sample.run_id))
        ).all()
    )
    covers: dict[int, list[str]] = {
        adapter.key: [adapter.cover_sha256] for adapter in adapters if adapter.cover_sha256
    }
    for sample in session.exec(
        select(Sample)
        .where(col(Sample.run_id).in_(runs))
        .where(col(Sample.step).in_(set(last_step.values())))
        .order_by(col(Sample.prompt_index))
    ):
        if sample.step == last_step[sample.run_id]:
            shown = covers.setdefault(runs[sample.run_id], [])
            if sample.sha256 not in shown:
                shown.append(sample.sha256)
    return covers


def get_adapter(session: Session, adapter_id: int) -> Adapter:
    """The adapter, unless it was deleted."""
    adapter = session.get(Adapter, adapter_id)
    if adapter is None or adapter.deleted_at is not None:
        raise NotFound("There is no such adapter; it may have been deleted.")
    return adapter


def adapter_by_slug(session: Session, slug: str) -> Adapter:
    """The adapter with this address, unless it was deleted."""
    query = select(Adapter).where(Adapter.slug == slug, col(Adapter.deleted_at).is_(None))
    adapter = session.exec(query).first()
    if adapter is None:
        raise NotFound("There is no such adapter; it may have been deleted.")
    return adapter


def summary(session: Session, adapter: Adapter) -> AdapterSummary:
    """The card of one adapter."""
    return summarize(session, [adapter])[0]


def list_versions(session: Session, adapter_id: int) -> list[AdapterVersion]:
    """All versions of an adapter, newest first."""
    query = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter_id)
    return list(session.exec(query.order_by(col(AdapterVersion.version).desc())))


def get_version(session: Session, adapter: Adapter, version: int | None = None) -> AdapterVersion:
    """One version of an adapter by its number; None: the one `latest` names, else the newest."""
    versions = list_versions(session, adapter.key)
    if version is None:
        alias = session.get(AdapterAlias, (adapter.key, "latest"))
        wanted = [row for row in versions if alias is not None and row.id == alias.version_id]
        return (wanted or versions)[0]
    for row in versions:
        if row.version == version:
            return row
    raise NotFound(f"“{adapter.name}” has no version {version}.")


def version_run(session: Session, version: AdapterVersion) -> Run | None:
    """The run that trained a version; None for an imported one."""
    return session.get(Run, version.run_id) if version.run_id else None


def version_base(session: Session, version: AdapterVersion) -> BaseModel | None:
    """The base a version was trained on, when it is known."""
    return session.get(BaseModel, version.base_model_id) if version.base_model_id else None


def version_dataset(
    session: Session, version: AdapterVersion
) -> tuple[Dataset, DatasetVersion] | None:
    """The dataset a version learned from, as it was then; None for an imported one."""
    pinned = session.get(DatasetVersion, version.dataset_version_id or 0)
    dataset = session.get(Dataset, pinned.dataset_id) if pinned else None
    return (dataset, pinned) if dataset and pinned else None


def version_samples(session: Session, version: AdapterVersion) -> list[Sample]:
    """The last row of samples of the run that trained a version."""
    of_run = Sample.run_id == (version.run_id or 0)
    last = select(func.max(Sample.step)).where(of_run).scalar_subquery()
    query = select(Sample).where(of_run, Sample.step == last)
    return list(session.exec(query.order_by(col(Sample.prompt_index))))


@dataclass(frozen=True)
class AdapterChange:
    """What may be changed of an adapter; None leaves as is."""

    name: str | None = None
    notes: str | None = None
    starred: bool | None = None
    trigger_words: list[str] | None = None
    tags: list[str] | None = None
    cover_sha256: str | None = None


def change_adapter(session: Session, adapter_id: int, change: AdapterChange) -> Adapter:
    """Change what people say about an adapter; its versions never change."""
    adapter = get_adapter(session, adapter_id)
    for field in ("name", "notes", "starred", "trigger_words", "cover_sha256"):
        value = getattr(change, field)
        if value is not None:
            setattr(adapter, field, value)
    if change.tags is not None:
        _set_tags(session, adapter.key, change.tags)
    session.add(adapter)
    session.flush()
    return adapter


def _set_tags(session: Session, adapter_id: int, tags: Sequence[str]) -> None:
    wanted = {tag.strip().lower() for tag in tags if tag.strip()}
    if len(wanted) > MAX_TAGS or any(len(tag) > MAX_TAG_LENGTH for tag in wanted):
        sentence = f"At most {MAX_TAGS} tags of at most {MAX_TAG_LENGTH} characters each."
        raise InvalidInput(sentence, fields={"tags": sentence})
    present = {
        row.tag: row
        for row in session.exec(select(AdapterTag).where(AdapterTag.adapter_id == adapter_id))
    }
    for tag in wanted - present.keys():
        session.add(AdapterTag(adapter_id=adapter_id, tag=tag))
    for tag in present.keys() - wanted:
        session.delete(present[tag])


def delete_adapter(session: Session, adapter_id: int) -> Adapter:
    """Put an adapter away; its files stay until the trash is cleared."""
    adapter = get_adapter(session, adapter_id)
    adapter.deleted_at = utcnow()
    session.add(adapter)
    return adapter


def restore_adapter(session: Session, adapter_id: int) -> Adapter:
    """Undo `delete_adapter`."""
    adapter = session.get(Adapter, adapter_id)
    if adapter is None:
        raise NotFound("There is no such adapter.")
    adapter.deleted_at = None
    session.add(adapter)
    return adapter


def find_file(
    session: Session, version_id: int, file_format: DownloadFormat, dtype: DownloadDtype
) -> AdapterFile | None:
    """The written and checked download, when it exists already."""
    query = select(AdapterFile).where(
        AdapterFile.version_id == version_id,
        AdapterFile.format == file_format,
        AdapterFile.dtype == dtype,
    )
    return session.exec(query).first()


def download_bytes(session: Session, version: AdapterVersion) -> int | None:
    """The size of the usual download, the kohya file in fp16; None before it was written."""
    file = find_file(session, version.key, DownloadFormat.KOHYA, DownloadDtype.FP16)
    return file.size_bytes if file else None


def newest_order(
    session: Session, version_id: int, file_format: DownloadFormat, dtype: DownloadDtype
) -> IoJob | None:
    """The newest io job that writes or wrote this download; None when nobody asked yet."""
    orders = select(IoJob).where(IoJob.kind == "export_adapter", IoJob.subject_id == version_id)
    for job in session.exec(orders.order_by(col(IoJob.id).desc())):
        if job.args == {"format": file_format, "dtype": dtype}:
            return job
    return None


def order_file(
    session: Session, version_id: int, file_format: DownloadFormat, dtype: DownloadDtype
) -> IoJob:
    """The waiting or running io job that writes a download; made when there is none."""
    job = newest_order(session, version_id, file_format, dtype)
    if job is not None and job.state.is_active:
        return job
    return enqueue_io(
        session, "export_adapter", subject_id=version_id, format=file_format, dtype=dtype
    )


def file_name(
    adapter: Adapter, version: AdapterVersion, file_format: DownloadFormat, dtype: DownloadDtype
) -> str:
    """A safe name for a download: `slug-v2.safetensors`, told apart where formats would collide."""
    parts = [adapter.slug, f"v{version.version}"]
    if file_format is DownloadFormat.PEFT:
        parts.append("peft")
    if dtype is not DownloadDtype.FP16:
        parts.append(dtype)
    ending = "zip" if file_format is DownloadFormat.BUNDLE else "safetensors"
    return f"{'-'.join(parts)}.{ending}"


def order_import(
    session: Session,
    *,
    sha256: str,
    filename: str,
    adapter_id: int | None = None,
    base_model_id: int | None = None,
    sidecars: Sequence[Mapping[str, str]] = (),
) -> IoJob:
    """An io job that checks an uploaded LoRA file and makes an adapter of it.

    With `adapter_id` it becomes the next version of that adapter, with `base_model_id` it has to
    fit that base; both have to exist. `sidecars` are stored files by `name` and `sha256`.
    """
    order: dict[str, Any] = {"sha256": sha256, "filename": filename}
    if adapter_id is not None:
        order["adapter_id"] = get_adapter(session, adapter_id).key
    if base_model_id is not None:
        order["base_model_id"] = get_base_model(session, base_model_id).key
    if sidecars:
        order["sidecars"] = [dict(sidecar) for sidecar in sidecars]
    return enqueue_io(session, "import_adapter", **order)


def get_import(session: Session, job_id: int) -> IoJob:
    """The check of an uploaded LoRA file, waiting, at work or ended."""
    job = session.get(IoJob, job_id)
    if job is None or job.kind != "import_adapter":
        raise NotFound("There is no such import.")
    return job
