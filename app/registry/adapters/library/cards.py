"""Summaries of adapters for cards: current version, tags and covers, in a few queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.adapters.models import LATEST, Adapter, AdapterAlias, AdapterTag, AdapterVersion
from app.registry.runs.models import Sample


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
    keys = [adapter.key for adapter in adapters]
    counts, latest = _latest_versions(session, keys)
    tags: dict[int, list[str]] = {}
    for row in session.exec(
        select(AdapterTag).where(col(AdapterTag.adapter_id).in_(keys)).order_by(AdapterTag.tag)
    ):
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
    numbers = session.exec(
        select(AdapterVersion.adapter_id, func.count(), func.max(AdapterVersion.version))
        .where(col(AdapterVersion.adapter_id).in_(keys))
        .group_by(col(AdapterVersion.adapter_id))
    ).all()
    aliased = select(AdapterVersion).join(
        AdapterAlias,
        (col(AdapterAlias.version_id) == col(AdapterVersion.id))
        & (col(AdapterAlias.alias) == LATEST),
    )
    found = session.exec(aliased.where(col(AdapterAlias.adapter_id).in_(keys)))
    latest = {row.adapter_id: row for row in found}
    missing = [
        (key, newest) for key, _, newest in numbers if key not in latest and newest is not None
    ]
    if missing:
        place = sa.tuple_(col(AdapterVersion.adapter_id), col(AdapterVersion.version))
        for row in session.exec(select(AdapterVersion).where(place.in_(missing))):
            latest[row.adapter_id] = row
    return {key: count for key, count, _ in numbers}, latest


def _find_covers(
    session: Session, adapters: Sequence[Adapter], latest: Mapping[int, AdapterVersion]
) -> dict[int, list[str]]:
    """The chosen cover of each adapter, then the last samples of its version's run."""
    runs = {version.run_id: key for key, version in latest.items() if version.run_id}
    covers = {adapter.key: [adapter.cover_sha256] for adapter in adapters if adapter.cover_sha256}
    for sample in last_samples(session, list(runs)):
        shown = covers.setdefault(runs[sample.run_id], [])
        if sample.sha256 not in shown:
            shown.append(sample.sha256)
    return covers


def last_samples(session: Session, run_ids: Sequence[int]) -> list[Sample]:
    """The last row of samples of each run, in the order of the prompts."""
    if not run_ids:
        return []
    last = (
        select(Sample.run_id, func.max(Sample.step).label("step"))
        .where(col(Sample.run_id).in_(run_ids))
        .group_by(col(Sample.run_id))
        .subquery()
    )
    query = (
        select(Sample)
        .join(last, (col(Sample.run_id) == last.c.run_id) & (col(Sample.step) == last.c.step))
        .order_by(col(Sample.prompt_index))
    )
    return list(session.exec(query))
