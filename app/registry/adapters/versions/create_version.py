"""Creates a version of an adapter with its downloads, and points the alias `latest` to it.

Says before a training which adapter it can make the next version of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, func, select

from app.registry.adapters.versions import aliases
from app.registry.blobs import findings
from app.registry.code_version import code_version
from app.registry.datasets.used_datasets import DATASETS
from app.registry.db import advisory_lock, utcnow
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs.rights import may_add
from app.registry.slugs import insert_named, unique_slug
from app.registry.tables.adapters import LATEST, Adapter, AdapterFile, AdapterVersion, is_in_library
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.runs import Run
from worker.core.lora_files.weights import USUAL_WEIGHT

FALLBACK_SLUG = "adapter"
LOOKED_AT = 50  # versions of one dataset and base model, the newest first


@dataclass(frozen=True)
class NewFile:
    """A verified download whose blob is stored."""

    format: str
    dtype: str
    sha256: str
    size_bytes: int
    proof: dict[str, Any] = field(default_factory=dict)
    with_tags: bool = False
    facts_sha256: str | None = None


@dataclass(frozen=True)
class NewVersion:
    """Properties of a new version whose canonical file is stored."""

    name: str
    base_family: str
    sha256: str
    size_bytes: int
    rank: int
    alpha: float
    trigger_words: Sequence[str] = ()
    base_model_id: int | None = None
    dataset_version_id: int | None = None
    run_id: int | None = None
    steps: int | None = None
    usual_weight: float = USUAL_WEIGHT
    trainable_parameters: int | None = None
    base_parameters: int | None = None
    peak_memory_bytes: int | None = None
    training_seconds: float | None = None
    cover_sha256: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    files: Sequence[NewFile] = ()
    tensor_sha256: str | None = None
    weight_sketch: bytes | None = None
    license: str = ""
    ruined: str | None = None  # why it is worse than the base model
    number: int | None = None  # None: the next one
    becomes_latest: bool = True  # False: `latest` stays, unless it is the first version


SHARED = NewVersion.__dataclass_fields__.keys() & AdapterVersion.model_fields.keys()
"""The properties that a row of a version has too."""


def publish(session: Session, new: NewVersion, *, adapter_id: int | None = None) -> AdapterVersion:
    """Create a version of this adapter, or of a new one, and point `latest` to it.

    One that does not become the latest leaves `latest` and the cover, unless it is the first.
    The blobs must be stored before. Concurrent calls for one adapter are serialized. If the adapter
    was deleted, or holds the checkpoints of a run, a new one is created.
    """
    adapter = _get_or_add_adapter(session, new, adapter_id)
    used = None if new.becomes_latest else _version_in_use(session, adapter)
    version = make_version(session, new, adapter)
    session.add(version)
    session.flush()
    findings.forget_problems(session, new.sha256, new.cover_sha256)
    for file in new.files:
        add_file(session, version.key, file)
    aliases.point(session, used or version, LATEST)
    return version


def future_rows(
    session: Session, new: NewVersion, *, adapter_id: int | None
) -> tuple[Adapter, AdapterVersion]:
    """The adapter and version that `publish` would make now, as rows that are not stored."""
    adapter = session.get(Adapter, adapter_id) if adapter_id is not None else None
    if adapter is None or not _takes_versions(adapter):
        slug = future_slug(session, new.name)
        adapter = Adapter(name=new.name, slug=slug, **_adapter_fields(new))
    else:
        cover = _next_cover(adapter, new)
        adapter = Adapter(**adapter.model_dump() | {"cover_sha256": cover})
    return adapter, make_version(session, new, adapter)


def make_version(session: Session, new: NewVersion, adapter: Adapter) -> AdapterVersion:
    """The row of a version, which is not stored yet."""
    derived = {
        "adapter_id": adapter.id or 0,
        "version": next_number(session, adapter) if new.number is None else new.number,
        "on_several_datasets": bool(new.details.get(DATASETS)),
        "trigger_words": list(new.trigger_words),
        "details": _base_facts(session, new) | new.details,
        "file_tensor_sha256": new.details.get("tensor_sha256"),
        "code_version": code_version(),
    }
    return AdapterVersion(**{name: getattr(new, name) for name in SHARED} | derived)


def _base_facts(session: Session, new: NewVersion) -> dict[str, Any]:
    """The current fingerprint of the base model, whose files may change later."""
    base = session.get(BaseModel, new.base_model_id) if new.base_model_id else None
    return {"base_fingerprint": base.fingerprint} if base and base.fingerprint else {}


def add_file(session: Session, version_id: int, file: NewFile) -> AdapterFile:
    """Store a download of a version; replaces an earlier one of the same format."""
    kind = {"format": file.format, "dtype": file.dtype, "with_tags": file.with_tags}
    earlier = select(AdapterFile).filter_by(version_id=version_id, **kind)
    row = session.exec(earlier).first() or AdapterFile(version_id=version_id, **vars(file))
    session.add(row.sqlmodel_update(vars(file)))
    findings.forget_problems(session, file.sha256)
    return row


def find_equal(
    session: Session,
    *,
    canonical: str,
    uploaded: str,
    tensors: str | None = None,
    tensors_of_file: str | None = None,
) -> AdapterVersion | None:
    """The version with these weights, or one with a download identical to the uploaded file.

    `tensors_of_file`: the hash of a file's bytes after its header, by which other programs identify
    a LoRA; found is also a version imported from, or offered as, such a file.
    Concurrent calls for the same `tensors` are serialized, so two imports of one file create one
    adapter.
    """
    if tensors is not None:
        advisory_lock(session, int.from_bytes(bytes.fromhex(tensors)[:8], "big", signed=True))
    same = select(AdapterVersion).join(Adapter).where(is_in_library())
    downloads = select(AdapterFile.version_id).where(AdapterFile.sha256 == uploaded)
    ways = [col(AdapterVersion.sha256) == canonical, col(AdapterVersion.id).in_(downloads)]
    if tensors is not None:
        ways.insert(0, col(AdapterVersion.tensor_sha256) == tensors)
    if tensors_of_file is not None:
        ways.insert(0, col(AdapterVersion.file_tensor_sha256) == tensors_of_file)
    for way in ways:
        version = session.exec(same.where(way).order_by(col(AdapterVersion.id))).first()
        if version is not None:
            return version
    return None


def future_slug(session: Session, name: str) -> str:
    """The slug that a new adapter of this name would get."""
    return unique_slug(session, Adapter, name, fallback=FALLBACK_SLUG)


def adapter_of_parent(session: Session, run: Run) -> int | None:
    """The adapter that the run creates a version of; None if it creates a new adapter.

    A new one is created, too, where its owner may not change that of its parent.
    """
    parent = session.get(Run, run.parent_id) if run.parent_id else None
    if run.adapter_id is not None:
        key = _if_not_deleted(session, run.adapter_id)
    else:
        key = adapter_of_child(session, parent) if parent else None
    adapter = session.get(Adapter, key) if key is not None else None
    return key if adapter is not None and may_add(session, run, adapter) else None


def adapter_of_child(session: Session, parent: Run) -> int | None:
    """The adapter that a run which continues this one creates a version of; None: a new one."""
    seen: Run | None = parent
    while seen is not None:
        adapter_id = seen.adapter_id
        if adapter_id is None and seen.adapter_version_id is not None:
            version = session.get(AdapterVersion, seen.adapter_version_id)
            adapter_id = version.adapter_id if version else None
        if adapter_id is not None:
            return _if_not_deleted(session, adapter_id)
        seen = session.get(Run, seen.parent_id) if seen.parent_id else None
    return None


def _if_not_deleted(session: Session, adapter_id: int) -> int | None:
    adapter = session.get(Adapter, adapter_id)
    return adapter_id if adapter is not None and adapter.deleted_at is None else None


def _get_or_add_adapter(session: Session, new: NewVersion, adapter_id: int | None) -> Adapter:
    if adapter_id is not None:
        locked = select(Adapter).where(Adapter.id == adapter_id).with_for_update()
        adapter = session.exec(locked.execution_options(populate_existing=True)).one()
        if _takes_versions(adapter):
            adapter.updated_at = utcnow()
            adapter.cover_sha256 = _next_cover(adapter, new)
            session.add(adapter)
            session.flush()
            return adapter
    return insert_named(session, Adapter, new.name, fallback=FALLBACK_SLUG, **_adapter_fields(new))


def _version_in_use(session: Session, adapter: Adapter) -> AdapterVersion | None:
    number = aliases.alias_numbers(session, adapter.key).get(LATEST)
    query = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter.key)
    return session.exec(query.where(AdapterVersion.version == number)).first()


def _next_cover(adapter: Adapter, new: NewVersion) -> str | None:
    """The cover once the adapter has this version; one that is not in use is not shown."""
    first, second = new.cover_sha256, adapter.cover_sha256
    return first or second if new.becomes_latest else second or first


def _takes_versions(adapter: Adapter) -> bool:
    return adapter.deleted_at is None and adapter.is_listed


def _adapter_fields(new: NewVersion) -> dict[str, Any]:
    """The fields besides the name that a new adapter takes from its first version."""
    return {
        "trigger_words": list(new.trigger_words),
        "base_family": new.base_family,
        "cover_sha256": new.cover_sha256,
        "license": new.license,
    }


def next_number(session: Session, adapter: Adapter) -> int:
    """The number of the next version of an adapter."""
    query = select(func.max(AdapterVersion.version)).where(AdapterVersion.adapter_id == adapter.id)
    return max(session.exec(query).one() or 0, adapter.last_version or 0) + 1


@dataclass(frozen=True)
class NextVersion:
    """The number of the next version of an adapter, after the `waiting` runs that make one."""

    adapter: Adapter
    number: int
    waiting: int


def next_version(session: Session, adapter: Adapter) -> NextVersion:
    """The next version of an adapter, if all runs that have not ended make one before."""
    unfinished = select(func.count()).select_from(Run)
    unfinished = unfinished.where(Run.adapter_id == adapter.key, col(Run.status).in_(NOT_FINAL))
    waiting = session.exec(unfinished).one()
    return NextVersion(adapter, next_number(session, adapter) + waiting, waiting)


def adapter_to_extend(
    session: Session, dataset: Dataset, base_model_id: int, words: Sequence[str]
) -> Adapter | None:
    """The adapter trained last from this dataset, for this base model and with these triggers."""
    made = (
        select(Adapter, AdapterVersion)
        .join(AdapterVersion, col(AdapterVersion.adapter_id) == col(Adapter.id))
        .join(DatasetVersion, col(DatasetVersion.id) == AdapterVersion.dataset_version_id)
        .where(
            DatasetVersion.dataset_id == dataset.key,
            AdapterVersion.base_model_id == base_model_id,
            is_in_library(),
        )
        .order_by(col(AdapterVersion.id).desc())
        .limit(LOOKED_AT)
    )
    found = session.exec(made).all()
    return next((adapter for adapter, row in found if row.trigger_words == list(words)), None)


def is_made_for(session: Session, adapter: Adapter, base_model_id: int) -> bool:
    """True if a version of the adapter was made for this base model."""
    query = select(AdapterVersion.id).where(
        AdapterVersion.adapter_id == adapter.key, AdapterVersion.base_model_id == base_model_id
    )
    return session.exec(query.limit(1)).first() is not None
