"""The current metadata of a download; a file with other metadata is stale.

An export that failed for a permanent reason is not offered again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.actor import Visibility
from app.registry.adapters.versions.create_version import NewVersion, future_rows
from app.registry.code_version import code_version
from app.registry.datasets.several_captions import item_captions
from app.registry.datasets.used_datasets import version_datasets
from app.registry.job_kinds.kinds import ExportAdapterArgs, ExportAdapterResult, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.adapters import Adapter, AdapterTag, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from worker.core.families.family import BaseFamily
from worker.core.lora_files.file_names import file_stem
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.weights import USUAL_WEIGHT

FILE_ERRORS = frozenset({"adapter", "proof"})  # other failures are temporary, such as a full disk


def version_metadata(
    session: Session, version: AdapterVersion, *, with_tags: bool = False
) -> AdapterMetadata:
    """The current metadata of a version's download; notes and tags only `with_tags`."""
    adapter = session.get_one(Adapter, version.adapter_id)
    metadata = _metadata_of(session, adapter, version)
    if not with_tags:
        return metadata
    tags = session.exec(select(AdapterTag.tag).where(AdapterTag.adapter_id == adapter.key))
    return replace(
        metadata,
        description=adapter.notes,
        tags=tuple(sorted(tags)),
        tag_counts=_caption_tags(session, adapter, version),
    )


def future_metadata(
    session: Session, new: NewVersion, *, adapter_id: int | None
) -> AdapterMetadata:
    """The metadata that `new` will have once `publish` has made a version of it."""
    return _metadata_of(session, *future_rows(session, new, adapter_id=adapter_id))


def with_cover(metadata: AdapterMetadata, store: BlobStore, scratch: Path) -> AdapterMetadata:
    """The metadata with the cover as a file, when its blob is still there and undamaged."""
    sha256 = metadata.cover_sha256
    if sha256 is None:
        return metadata
    try:
        return replace(metadata, cover=store.local_path(sha256, scratch))
    except (BlobNotFound, BlobDamaged):
        return metadata


def facts_sha256(metadata: AdapterMetadata) -> str:
    """The hash of what may change later, which tells files apart that say different things.

    It is stored with every download, so its input has to stay as it is, byte for byte: the keys,
    their order, and which fields it has. The usual weight is part of it once somebody edited it,
    weight cards once there is one.
    """
    facts: dict[str, object] = {
        "title": metadata.title,
        "slug": metadata.slug,
        "base_name": metadata.base_name,
        "resolution": metadata.file_resolution,
        "prediction_type": metadata.prediction_type,
        "trigger_words": metadata.trigger_words,
        "licence": metadata.license,
        "cover_sha256": metadata.cover_sha256,
        "notes": metadata.description,
        "tags": metadata.tags,
    }
    if metadata.usual_weight != USUAL_WEIGHT:
        facts["usual_weight"] = metadata.usual_weight
    if metadata.weight_cards:
        facts["weight_cards"] = metadata.card_words
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _metadata_of(session: Session, adapter: Adapter, version: AdapterVersion) -> AdapterMetadata:
    base = session.get(BaseModel, version.base_model_id) if version.base_model_id else None
    predicted = version.config.get("prediction_type") or (base and base.prediction_type)
    return AdapterMetadata(
        title=adapter.name,
        slug=file_stem(adapter.slug, version.version, is_step=not adapter.is_listed),
        family=BaseFamily(adapter.base_family),
        created=version.created_at,
        base_name=base.original_name if base else "",
        resolution=version.config.get("resolution") or (base.resolution if base else None),
        prediction_type=str(predicted or "epsilon"),
        trigger_words=tuple(adapter.trigger_words),
        training_seconds=version.training_seconds,
        author=str(version.details.get("author") or ""),
        license=adapter.license,
        usual_weight=version.usual_weight,
        weight_cards=tuple(version.weight_cards.values()),
        images=version.details.get("images"),
        cover_sha256=adapter.cover_sha256,
        train_config=version.config,
    )


def _caption_tags(session: Session, adapter: Adapter, version: AdapterVersion) -> dict[str, int]:
    """The frequency of each comma-separated tag in the captions of a version's datasets.

    Whoever sees the adapter gets the file, so private datasets count only if it is private, too.
    """
    seen = {adapter.visibility, Visibility.STUDIO, Visibility.STUDIO_EDIT}
    datasets = version_datasets(session, version)
    items = [
        item for one in datasets if one.dataset.visibility in seen for item in one.pinned.items
    ]
    captions = [text for item in items for text in item_captions(item)]
    tags = (tag.strip() for caption in captions for tag in caption.split(","))
    return dict(Counter(tag for tag in tags if tag))


def is_refused(session: Session, order: IoJob) -> bool:
    """True if an export failed because of its file and would fail again with the same code.

    An export without a recorded reason is tried again.
    """
    if order.state is not JobStatus.FAILED or order.error_code not in FILE_ERRORS:
        return False
    version = session.get(AdapterVersion, order.subject_id)
    failure = order.outcome(ExportAdapterResult)
    if version is None or failure.code_version != code_version():
        return False
    with_tags = order.arguments(ExportAdapterArgs).with_tags
    metadata = version_metadata(session, version, with_tags=with_tags)
    return failure.facts_sha256 == facts_sha256(metadata)


def refusals(session: Session, version_id: int) -> dict[tuple[str, str], str]:
    """Reasons why downloads of a version are not offered, by format and dtype, without tags.

    Only the newest export of each counts.
    """
    orders = select(IoJob).where(
        IoJob.kind == JobKind.EXPORT_ADAPTER, IoJob.subject_id == version_id
    )
    newest: dict[tuple[str, str], IoJob] = {}
    for job in session.exec(orders.order_by(col(IoJob.id))):
        args = job.readable_arguments()
        if isinstance(args, ExportAdapterArgs) and not args.with_tags:
            newest[args.format, args.dtype] = job
    return {kind: job.error or "" for kind, job in newest.items() if is_refused(session, job)}
