"""What is not measured yet and the job for it, the images that an adapter is measured in, its look.

An adapter is measured at its version in use: in its samples where their prompts are those of a
preset, so that others share them, else in its cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.blobs import looks
from app.registry.job_kinds.kinds import JobKind, MeasureLooksArgs
from app.registry.jobs.service import orders_if_due, was_ordered
from app.registry.tables.adapters import (
    LATEST,
    Adapter,
    AdapterAlias,
    AdapterVersion,
    is_in_library,
)
from app.registry.tables.blobs import LOOK_VERSION, AdapterLook, Basis
from worker.core.training.presets import SAMPLE_SUBJECTS, form_of

PRIORITY = 190  # after jobs that a person waits for, before thumbnails of older images
RETRY_INTERVAL = timedelta(hours=1)  # after a job that failed


def images_of(session: Session, adapter: Adapter, latest: int | None) -> AdapterLook:
    """The images to measure an adapter in, whose alias `latest` names this version."""
    summary = adapters.summary(session, adapter)
    row = AdapterLook(
        adapter_id=adapter.key,
        look_version=LOOK_VERSION,
        version_id=latest,
        cover_sha256=adapter.cover_sha256,
        basis=Basis.PROMPTS,
        images=_sampled(session, summary.version),
    )
    if not row.images:
        row.basis, row.images = Basis.COVER, [["", sha256] for sha256 in summary.covers[:1]]
    return row


def _sampled(session: Session, version: AdapterVersion) -> list[list[str]]:
    samples = adapters.version_samples(session, version)
    if form_of([sample.prompt for sample in samples]) is None:
        return []
    return [
        [subject, sample.sha256] for subject, sample in zip(SAMPLE_SUBJECTS, samples, strict=True)
    ]


def save_adapter(session: Session, row: AdapterLook) -> None:
    """Store the look of an adapter: the mean of those of its images, which were measured."""
    from worker.core.likeness import pack, unpack  # numpy, which no page of others needs

    measured = looks.find(session, row.hashes)
    row.images = [one for one in row.images if measured.get(one[1])]
    vectors = unpack([measured[sha256] or b"" for sha256 in row.hashes])
    row.look = pack(vectors.mean(axis=0)) if row.images else None
    session.merge(row)


def list_adapters(session: Session, *, limit: int) -> list[tuple[Adapter, int | None]]:
    """Up to `limit` adapters of the library that were not measured as they are now.

    Each with the id of the version that `latest` names.
    """
    named = (col(AdapterAlias.adapter_id) == col(Adapter.id)) & (col(AdapterAlias.alias) == LATEST)
    is_old = sa.or_(
        col(AdapterLook.adapter_id).is_(None),
        col(AdapterLook.look_version) < LOOK_VERSION,
        col(AdapterLook.version_id).is_distinct_from(col(AdapterAlias.version_id)),
        col(AdapterLook.cover_sha256).is_distinct_from(col(Adapter.cover_sha256)),
    )
    query = (
        select(Adapter, col(AdapterAlias.version_id))
        .outerjoin(AdapterLook, col(AdapterLook.adapter_id) == col(Adapter.id))
        .outerjoin(AdapterAlias, named)
        .where(is_in_library(), is_old)
    )
    return list(session.exec(query.limit(limit)).all())


def list_versions(session: Session, *, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` versions in the library without a sketch: id, and hash of the weights."""
    query = select(AdapterVersion.id, AdapterVersion.sha256).join(Adapter)
    missing = query.where(is_in_library(), col(AdapterVersion.weight_sketch).is_(None))
    return [(key or 0, sha256) for key, sha256 in session.exec(missing.limit(limit)).all()]


def is_due(session: Session) -> bool:
    """True if something is not measured, and no job is at it or has just failed."""
    if was_ordered(session, JobKind.MEASURE_LOOKS, retry_after=RETRY_INTERVAL):
        return False
    lists: list[Callable[..., Sequence[object]]]
    lists = [list_adapters, looks.missing_in_datasets, list_versions]
    return any(list_missing(session, limit=1) for list_missing in lists)


order_if_due = orders_if_due(is_due, MeasureLooksArgs(), priority=PRIORITY)
