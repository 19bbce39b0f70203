"""All datasets for a list to choose from, in one query without their images."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.tables.datasets import Dataset, Image, is_live


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset in a list to choose from."""

    id: int
    slug: str
    name: str
    image_count: int


def dataset_choices(session: Session) -> list[DatasetChoice]:
    """All datasets for a list to choose from, newest first."""
    query = (
        select(Dataset.id, Dataset.slug, Dataset.name, func.count(col(Image.id)))
        .outerjoin(Image, is_live(col(Dataset.id)))
        .where(col(Dataset.deleted_at).is_(None))
        .group_by(col(Dataset.id))
        .order_by(col(Dataset.created_at).desc(), col(Dataset.id).desc())
    )
    return [DatasetChoice(*row) for row in session.exec(query)]
