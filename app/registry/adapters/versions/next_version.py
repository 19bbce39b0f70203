"""The adapter that a training can make the next version of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.adapters.versions.create_version import next_number
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.runs import Run

LOOKED_AT = 50  # versions of one dataset and base model, the newest first


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
