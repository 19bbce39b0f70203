"""Summaries of adapters for cards: current version, tags and covers, in a few queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.adapters.versions.aliases import newest_version
from app.registry.tables.adapters import LATEST, Adapter, AdapterAlias, AdapterTag, AdapterVersion
from app.registry.tables.owned import all_parts, sees
from app.registry.tables.runs import Run, Sample


@dataclass(frozen=True)
class AdapterSummary:
    """Summary of an adapter for cards and the API; `version` is the one with alias `latest`."""

    adapter: Adapter
    version: AdapterVersion
    version_count: int
    tags: list[str]
    covers: list[str]


def summarize(session: Session, adapters: Sequence[Adapter]) -> list[AdapterSummary]:
    """The `latest` version, tags and covers of these adapters, in a few queries."""
    if not adapters:
        return []
    keys = [adapter.key for adapter in adapters]
    tags: dict[int, list[str]] = {}
    words = select(AdapterTag).where(col(AdapterTag.adapter_id).in_(keys)).order_by(AdapterTag.tag)
    with all_parts(session):  # who sees an adapter sees its tags and its versions
        counts, latest = _latest_versions(session, keys)
        for row in session.exec(words):
            tags.setdefault(row.adapter_id, []).append(row.tag)
        covers = _find_covers(session, adapters, latest)
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


def _latest_versions(
    session: Session, keys: Sequence[int]
) -> tuple[dict[int, int], dict[int, AdapterVersion]]:
    """Number of versions of each adapter, and its `latest` version, else its newest."""
    counted = (
        select(AdapterVersion.adapter_id, func.count())
        .where(col(AdapterVersion.adapter_id).in_(keys))
        .group_by(col(AdapterVersion.adapter_id))
    )
    numbers = session.exec(counted).all()
    aliased = select(AdapterVersion).join(
        AdapterAlias,
        (col(AdapterAlias.version_id) == col(AdapterVersion.id))
        & (col(AdapterAlias.alias) == LATEST),
    )
    found = session.exec(aliased.where(col(AdapterAlias.adapter_id).in_(keys)))
    latest = {row.adapter_id: row for row in found}
    for key, _ in numbers:
        if key not in latest and (newest := newest_version(session, key)):
            latest[key] = newest
    return dict(numbers), latest


def _find_covers(
    session: Session, adapters: Sequence[Adapter], latest: Mapping[int, AdapterVersion]
) -> dict[int, list[str]]:
    """The chosen cover of each adapter, then the last samples of its version's run."""
    samples = samples_of_versions(session, [version.key for version in latest.values()])
    covers = {adapter.key: [adapter.cover_sha256] for adapter in adapters if adapter.cover_sha256}
    for key, version in latest.items():
        for sample in samples.get(version.key, []):
            shown = covers.setdefault(key, [])
            if sample.sha256 not in shown:
                shown.append(sample.sha256)
    return covers


def samples_of_versions(session: Session, version_ids: Sequence[int]) -> dict[int, list[Sample]]:
    """The samples of each version by prompt, never those of the base model.

    Of its run the last row up to its step; of a run that was deleted those that it kept.
    """
    if not version_ids:
        return {}
    is_before = col(Sample.step) <= col(AdapterVersion.steps)
    last = (
        select(AdapterVersion.id, AdapterVersion.run_id, func.max(Sample.step).label("step"))
        .join(Sample, col(Sample.run_id) == col(AdapterVersion.run_id))
        .where(
            col(AdapterVersion.id).in_(version_ids),
            col(Sample.step) > 0,
            is_before | col(AdapterVersion.steps).is_(None),
            *sees(session, Run, col(Sample.run_id)),  # may be hidden where its version is not
        )
        .group_by(col(AdapterVersion.id), col(AdapterVersion.run_id))
        .subquery()
    )
    query = (
        select(last.c.id, Sample)
        .join(last, (col(Sample.run_id) == last.c.run_id) & (col(Sample.step) == last.c.step))
        .order_by(col(Sample.prompt_index))
    )
    found: dict[int, list[Sample]] = {}
    for version_id, sample in session.exec(query):
        found.setdefault(version_id, []).append(sample)
    kept = select(Sample).where(col(Sample.version_id).in_(version_ids))
    for sample in session.exec(kept.order_by(col(Sample.prompt_index))):
        found.setdefault(sample.version_id or 0, []).append(sample)
    return found


def belongs_to_version() -> sa.ColumnElement[bool]:
    """Condition for a sample and a version: the version keeps it, or it is of the same run."""
    is_of_run = col(Sample.run_id) == col(AdapterVersion.run_id)
    return is_of_run | (col(Sample.version_id) == col(AdapterVersion.id))
