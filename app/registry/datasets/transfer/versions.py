"""The pinned versions of a dataset, with the runs and adapters that used each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets.used_datasets import has_several, pinned_keys
from app.registry.errors import NotFound
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import Run, RunDataset


@api_record
class UsingAdapter:
    """A version of an adapter that was trained on a version of a dataset."""

    id: int = Field(description="Id of the adapter.")
    slug: str = Field(description="Its name in the addresses of pages.")
    name: str = Field(description="Its name.")
    version: int = Field(description="Number of its version.")


@api_record
class UsingRun:
    """A run on a version of a dataset."""

    id: int = Field(description="Id of the run.")
    name: str = Field(description="Its name.")
    regularization: bool = Field(description="True if it used them as regularization images.")


@api_record
class VersionSummary:
    """The images and captions of a dataset at one time, which runs were trained on."""

    id: int = Field(description="Id of the version.")
    dataset_id: int = Field(description="Its dataset.")
    fingerprint: str = Field(description="SHA-256 over its images, captions and their settings.")
    created_at: datetime = Field(description="When it was pinned.")
    image_count: int = Field(description="Number of images.")
    is_kept: bool = Field(
        description="False if its images were deleted for good with the last run on it."
    )
    runs: list[UsingRun] = Field(default_factory=list, description="The runs that used it.")
    adapters: list[UsingAdapter] = Field(default_factory=list)
    """The adapters that were made of it."""


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
    query = select(*columns).where(DatasetVersion.dataset_id == dataset_id)
    rows = session.exec(query.order_by(col(DatasetVersion.id).desc()))
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
        query = select(*columns).where(is_there).order_by(col(Run.id))
        if column is further:
            query = query.join(RunDataset, col(RunDataset.run_id) == col(Run.id))
        for version_id, key, name in session.exec(query):
            found[version_id].runs.append(UsingRun(key, name, regularization))


def _add_adapters(session: Session, found: dict[int, VersionSummary]) -> None:
    pinned: Any = AdapterVersion.dataset_version_id
    columns: list[Any] = [pinned, Adapter.id, Adapter.slug, Adapter.name, AdapterVersion.version]
    query = (
        select(*columns)
        .join(Adapter, col(Adapter.id) == AdapterVersion.adapter_id)
        .where(pinned.in_(list(found)), is_in_library(), col(AdapterVersion.deleted_at).is_(None))
        .order_by(col(AdapterVersion.id))
    )
    for version_id, *adapter in session.exec(query):
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
