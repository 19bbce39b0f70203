"""The pinned datasets that versions of adapters were trained on, also after their run is deleted.

The first one is a column of the version. A run on several datasets writes all of them into the
details of the version, as a list `datasets` with version, name, images and repeats.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.datasets import Dataset, DatasetVersion

DATASETS = "datasets"  # of the details


@dataclass(frozen=True)
class TrainedDataset:
    """A pinned dataset of a version, and how often an epoch used it."""

    dataset: Dataset
    pinned: DatasetVersion
    repeats: int

    @property
    def label(self) -> str:
        """Its name, with its repeats unless it has one."""
        return with_repeats(self.dataset.name, self.repeats)


def with_repeats(name: str, repeats: int) -> str:
    """The name of a dataset, with its repeats unless it has one."""
    return name if repeats == 1 else f"{name} × {repeats}"


def version_datasets(session: Session, version: AdapterVersion) -> list[TrainedDataset]:
    """The datasets of a version, the first one first; none if it was imported.

    One that was deleted for good is missing.
    """
    found = []
    for key, repeats in pinned_keys(version):
        pinned = session.get(DatasetVersion, key)
        dataset = session.get(Dataset, pinned.dataset_id) if pinned else None
        if pinned is not None and dataset is not None:
            found.append(TrainedDataset(dataset, pinned, repeats))
    return found


def pinned_keys(version: AdapterVersion) -> list[tuple[int, int]]:
    """The ids of the dataset versions, each with its repeats."""
    several = version.details.get(DATASETS)
    if several:
        return [(one.get("version", 0), one.get("repeats", 1)) for one in several]
    return [(version.dataset_version_id, 1)] if version.dataset_version_id else []


def trained_on(session: Session, keys: Collection[int]) -> list[AdapterVersion]:
    """The versions of adapters that were trained on one of these dataset versions."""
    of_keys = col(AdapterVersion.dataset_version_id).in_(keys) | has_several()
    rows = session.exec(select(AdapterVersion).where(of_keys).order_by(col(AdapterVersion.id)))
    return [row for row in rows if {key for key, _ in pinned_keys(row)} & set(keys)]


def has_several() -> sa.ColumnElement[bool]:
    """Condition on `AdapterVersion`: it was trained on several datasets."""
    return col(AdapterVersion.on_several_datasets).is_(True)


def forget_datasets(version: AdapterVersion, keys: Collection[int]) -> None:
    """Remove what a version says of datasets that are deleted for good, by their versions."""
    if version.dataset_version_id in keys:
        version.dataset_version_id = None
    details = {k: v for k, v in version.details.items() if k != "dataset"}
    if several := details.pop(DATASETS, None):
        details[DATASETS] = [
            {"images": one.get("images"), "repeats": one.get("repeats", 1)}
            if one.get("version") in keys
            else one
            for one in several
        ]
    version.details = details
