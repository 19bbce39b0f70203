"""The pinned versions of a dataset, with the runs and adapters that used each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.trained_on import has_several, pinned_keys
from app.registry.errors import NotFound
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import Run, RunDataset


@dataclass(frozen=True)
class UsingAdapter:
    """A version of an adapter that was trained on a dataset version."""

    id: int
    slug: str
    name: str
    version: int


@dataclass(frozen=True)
class UsingRun:
    """A run on a dataset version; `regularization`: it only used it to keep the base."""

    id: int
    name: str
    regularization: bool


@dataclass(frozen=True)
class VersionSummary:
    """A pinned version of a dataset without its images, and what used it.

    `is_kept`: its images and captions are still there; False after the last run on it was deleted.
    """

    id: int
    dataset_id: int
    fingerprint: str
    created_at: datetime
    image_count: int
    is_kept: bool
    runs: list[UsingRun] = field(default_factory=list)
    adapters: list[UsingAdapter] = field(default_factory=list)


def get_version(session: Session, version_id: int) -> DatasetVersion:
    """Look up a pinned version with its images. Raises NotFound."""
    version = session.get(DatasetVersion, version_id)
    if version is None:
        raise NotFound("There is no such version of a dataset.")
    return version


def list_versions(session: Session, dataset_id: int) -> list[VersionSummary]:
    """The pinned versions of a dataset, the newest first, without their images."""
    # the items of a version are long, and only whether there are any is needed
    has_items = sa.cast(col(DatasetVersion.items), sa.Text) != "[]"
    columns: list[Any] = [
        *(DatasetVersion.id, DatasetVersion.dataset_id, DatasetVersion.fingerprint),
        *(DatasetVersion.created_at, DatasetVersion.image_count, has_items),
    ]
    rows = session.connection().execute(
        sa.select(*columns)
        .where(col(DatasetVersion.dataset_id) == dataset_id)
        .order_by(col(DatasetVersion.id).desc())
    )
    found = {row[0]: VersionSummary(*row) for row in rows}
    _add_runs(session, found)
    _add_adapters(session, found)
    return list(found.values())


def _add_runs(session: Session, found: dict[int, VersionSummary]) -> None:
    trained: Any = Run.dataset_version_id
    regularized: Any = Run.regularization_version_id
    further: Any = RunDataset.dataset_version_id
    for column, regularization in ((trained, False), (further, False), (regularized, True)):
        columns: list[Any] = [column, Run.id, Run.name]
        is_there = column.in_(list(found)) & col(Run.deleted_at).is_(None)
        query = sa.select(*columns).where(is_there).order_by(col(Run.id))
        if column is further:
            query = query.join(RunDataset, col(RunDataset.run_id) == col(Run.id))
        for version_id, key, name in session.connection().execute(query):
            found[version_id].runs.append(UsingRun(key, name, regularization))


def _add_adapters(session: Session, found: dict[int, VersionSummary]) -> None:
    pinned: Any = AdapterVersion.dataset_version_id
    columns: list[Any] = [pinned, Adapter.id, Adapter.slug, Adapter.name, AdapterVersion.version]
    query = (
        sa.select(*columns)
        .join(Adapter, col(Adapter.id) == AdapterVersion.adapter_id)
        .where(pinned.in_(list(found)), is_in_library(), col(AdapterVersion.deleted_at).is_(None))
        .order_by(col(AdapterVersion.id))
    )
    for version_id, *adapter in session.connection().execute(query):
        found[version_id].adapters.append(UsingAdapter(*adapter))
    several = (
        select(Adapter, AdapterVersion)
        .join(AdapterVersion, col(Adapter.id) == AdapterVersion.adapter_id)
        .where(has_several(), is_in_library())
        .order_by(col(AdapterVersion.id))
    )
    for made, version in session.exec(several):
        for version_id, _ in pinned_keys(version)[1:]:
            if version_id in found:
                user = UsingAdapter(made.key, made.slug, made.name, version.version)
                found[version_id].adapters.append(user)
