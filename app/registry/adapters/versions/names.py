"""The names that versions of several adapters can be chosen by: aliases and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.tables.adapters import LATEST, AdapterAlias, AdapterVersion

MAX_NUMBERS = 20  # of an adapter with many versions, the newest


@dataclass(frozen=True)
class VersionNames:
    """Aliases of an adapter except `latest`, with their version numbers, and its newest numbers."""

    aliases: dict[str, int]
    numbers: list[int]


def names_of(session: Session, adapter_ids: Iterable[int]) -> dict[int, VersionNames]:
    """The names of the versions of each adapter, in two queries."""
    keys = set(adapter_ids)
    if not keys:
        return {}
    names: dict[int, VersionNames] = {key: VersionNames({}, []) for key in keys}
    place = (
        func.row_number()
        .over(
            partition_by=col(AdapterVersion.adapter_id), order_by=col(AdapterVersion.version).desc()
        )
        .label("place")
    )
    versions = (
        select(AdapterVersion.adapter_id, AdapterVersion.version, place)
        .where(col(AdapterVersion.adapter_id).in_(keys))
        .subquery()
    )
    newest = select(versions.c.adapter_id, versions.c.version)
    for key, number in session.exec(
        newest.where(versions.c.place <= MAX_NUMBERS).order_by(versions.c.version.desc())
    ):
        names[key].numbers.append(number)
    aliased = (
        select(AdapterAlias.adapter_id, AdapterAlias.alias, AdapterVersion.version)
        .join(AdapterVersion, col(AdapterVersion.id) == col(AdapterAlias.version_id))
        .where(col(AdapterAlias.adapter_id).in_(keys), col(AdapterAlias.alias) != LATEST)
        .order_by(col(AdapterAlias.alias))
    )
    for key, alias, number in session.exec(aliased):
        names[key].aliases[alias] = number
    return names
