"""The datasets of runs, and the pinned ones of versions, also after their run is deleted.

The first one is a column of the row. Further ones of a run have rows of their own. A version of
such a run has all of them in its details, as a list `datasets` with version, name, images and
repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, func, select

from app.registry.api_records import api_record
from app.registry.db import utcnow
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.owned import PRIVATE_NAME, everything
from app.registry.tables.runs import Run, RunDataset

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


@api_record
class UsedDataset:
    """A dataset that a run is trained on, as it was when the run was queued."""

    place: int = Field(exclude=True)
    id: int = Field(
        serialization_alias="dataset_id",
        description="The dataset; it may have been deleted since.",
    )
    version_id: int = Field(
        serialization_alias="dataset_version_id",
        description="Its images and captions as they were.",
    )
    repeats: int = Field(description="How often an epoch uses them, times their own repeats.")
    name: str = Field(description="Its name now.")
    slug: str = Field(exclude=True)
    deleted_at: datetime | None = Field(exclude=True)
    image_count: int = Field(
        serialization_alias="images", description="Images that are trained on."
    )

    @property
    def label(self) -> str:
        """Its name, with its repeats unless it has one."""
        return with_repeats(self.name, self.repeats)


def used_datasets(session: Session, run: Run) -> list[UsedDataset]:
    """The datasets that a run is trained on, the first one first."""
    return used_of_runs(session, [run])[run.key]


def regularization_dataset(session: Session, run: Run) -> int | None:
    """The id of the dataset of its regularization images, if it has some."""
    version = session.get(DatasetVersion, run.regularization_version_id or 0)
    return version.dataset_id if version else None


def used_of_runs(session: Session, runs: Sequence[Run]) -> dict[int, list[UsedDataset]]:
    """The datasets that these runs are trained on, by run, in two queries."""
    places = {
        run.key: [(1, run.dataset_id, run.dataset_version_id, run.dataset_repeats)] for run in runs
    }
    for row in further_datasets(session, places):
        place = (row.place, row.dataset_id, row.dataset_version_id, row.repeats)
        places[row.run_id].append(place)
    facts = _facts(session, {place[2] for found in places.values() for place in found})
    return {
        key: [UsedDataset(*place, *facts[place[2]]) for place in found]
        for key, found in places.items()
    }


def further_datasets(session: Session, run_ids: Collection[int]) -> list[RunDataset]:
    """The rows of the further datasets of these runs, by run and place."""
    query = select(RunDataset).where(col(RunDataset.run_id).in_(run_ids))
    ordered = query.order_by(col(RunDataset.run_id), col(RunDataset.place))
    return list(session.exec(ordered))


def _facts(session: Session, version_ids: Collection[int]) -> dict[int, tuple[Any, ...]]:
    """Name, slug, time of deletion and number of images, without the long list of images.

    A hidden dataset is named “private”, and as one that was deleted it has no page.
    """
    columns: list[Any] = [
        *(DatasetVersion.id, Dataset.name, Dataset.slug, Dataset.deleted_at),
        DatasetVersion.image_count,
    ]
    query = (
        select(*columns)
        .join(Dataset, col(Dataset.id) == col(DatasetVersion.dataset_id))
        .where(col(DatasetVersion.id).in_(version_ids))
    )
    found = {row[0]: tuple(row[1:]) for row in session.exec(query)}
    for key in set(version_ids) - found.keys():
        with everything(session):
            images = session.exec(
                select(DatasetVersion.image_count).where(DatasetVersion.id == key)
            )
            found[key] = (PRIVATE_NAME, "", utcnow(), images.one())
    return found


def image_total(used: Sequence[UsedDataset]) -> int:
    """The number of images of these datasets."""
    return sum(one.image_count for one in used)


def labels(used: Sequence[UsedDataset]) -> str:
    """Their names, such as “Ink, Wash × 3”."""
    return ", ".join(one.label for one in used)


def version_ids(session: Session, run: Run) -> list[int]:
    """The versions that a run is trained on, the first one first, then its regularization."""
    further = [row.dataset_version_id for row in further_datasets(session, [run.key])]
    regularization = run.regularization_version_id
    return [run.dataset_version_id, *further, *([regularization] if regularization else [])]


def is_of_datasets(dataset_ids: Collection[int]) -> sa.ColumnElement[bool]:
    """Condition on `Run`: it is trained on one of these datasets."""
    return _uses_one(col(Run.dataset_id), col(RunDataset.dataset_id), dataset_ids)


def is_trained_on(version_ids: Any) -> sa.ColumnElement[bool]:
    """Condition on `Run`: it is trained on one of these versions (ids or a query of them)."""
    versions = col(RunDataset.dataset_version_id)
    return _uses_one(col(Run.dataset_version_id), versions, version_ids)


def _uses_one(first: Any, further: Any, keys: Any) -> sa.ColumnElement[bool]:
    """Condition on `Run`: its first dataset or a further one has one of these keys."""
    others = sa.select(col(RunDataset.run_id)).where(further.in_(keys))
    return sa.or_(first.in_(keys), col(Run.id).in_(others))


def uses_versions(version_ids: Any) -> sa.ColumnElement[bool]:
    """Like `is_trained_on`, also as regularization images."""
    return is_trained_on(version_ids) | col(Run.regularization_version_id).in_(version_ids)


def count_runs(session: Session, dataset_ids: Collection[int]) -> dict[int, int]:
    """The number of runs on each of these datasets; those without are missing."""
    counts: Counter[int] = Counter()
    first, further = col(Run.dataset_id), col(RunDataset.dataset_id)
    of_first = select(first, func.count()).select_from(Run)
    of_further = select(further, func.count()).join(Run, col(Run.id) == col(RunDataset.run_id))
    for column, query in ((first, of_first), (further, of_further)):
        for key, count in session.exec(query.where(column.in_(dataset_ids)).group_by(column)):
            counts[key] += count
    return counts


def dataset_details(used: Sequence[UsedDataset]) -> dict[str, Any]:
    """The datasets of a version's run, as its details show them; a list only for several."""
    details: dict[str, Any] = {
        "images": image_total(used),
        "dataset": ", ".join(one.name for one in used),
    }
    if len(used) > 1 or any(one.repeats != 1 for one in used):
        details["datasets"] = [
            {
                "version": one.version_id,
                "name": one.name,
                "images": one.image_count,
                "repeats": one.repeats,
            }
            for one in used
        ]
    return details
