"""Aliases: movable names of versions, `latest` and those of users, such as `best`.

`latest` points to the version that is used by default. It moves to each new version; you can move
it back to an older one until the next version. It cannot be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.db import upsert
from app.registry.errors import InvalidInput, NotFound
from app.registry.tables.adapters import LATEST, AdapterAlias, AdapterVersion

MAX_ALIAS = 40
MAX_ALIASES = 50
ALIAS = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_ALIAS - 1}}}")
NUMBER = re.compile(r"v?([0-9]{1,9})")
MAX_NUMBERS = 20  # of an adapter with many versions, the newest


def read_alias(text: str) -> str:
    """Normalize an alias for storage. Raises InvalidInput with the allowed form."""
    alias = text.strip().lower()
    sentence = None
    if not ALIAS.fullmatch(alias):
        sentence = (
            f"Use up to {MAX_ALIAS} letters a to z, digits, dots, dashes and underscores, starting "
            "with a letter or digit."
        )
    elif NUMBER.fullmatch(alias):
        sentence = f"“{alias}” would be read as a version number. Use a word, such as “best”."
    if sentence:
        raise InvalidInput(sentence, fields={"alias": sentence})
    return alias


def set_alias(session: Session, version: AdapterVersion, alias: str) -> str:
    """Point an alias to this version; return it as stored.

    A single statement inserts or moves it, so the last of concurrent writers wins.
    """
    alias = read_alias(alias)
    query = select(AdapterAlias.alias).where(AdapterAlias.adapter_id == version.adapter_id)
    names = set(session.exec(query))
    if alias not in names and len(names) >= MAX_ALIASES:
        sentence = f"An adapter can have at most {MAX_ALIASES} aliases. Delete one first."
        raise InvalidInput(sentence, fields={"alias": sentence})
    point(session, version, alias)
    return alias


def point(session: Session, version: AdapterVersion, alias: str) -> None:
    """Insert or move a validated alias."""
    to_version = {"version_id": version.key}
    row = {"adapter_id": version.adapter_id, "alias": alias, **to_version}
    session.flush()
    upsert(session, AdapterAlias, [row], to_version)
    known = session.identity_map.get(
        session.identity_key(AdapterAlias, (version.adapter_id, alias))
    )
    if known is not None:
        session.expire(known)


def delete_alias(session: Session, adapter_id: int, alias: str) -> None:
    """Delete an alias; its version stays. `latest` can only be moved."""
    alias = alias.strip().lower()
    if alias == LATEST:
        sentence = "“latest” cannot be deleted. Move it to another version instead."
        raise InvalidInput(sentence, fields={"alias": sentence})
    row = session.get(AdapterAlias, (adapter_id, alias)) if ALIAS.fullmatch(alias) else None
    if row is None:
        raise NotFound("There is no such alias; it may have been deleted already.")
    session.delete(row)


def alias_numbers(session: Session, adapter_id: int) -> dict[str, int]:
    """The version number of each alias of an adapter, in alphabetical order."""
    query = (
        select(AdapterAlias.alias, AdapterVersion.version)
        .join(AdapterVersion, col(AdapterVersion.id) == col(AdapterAlias.version_id))
        .where(AdapterAlias.adapter_id == adapter_id)
        .order_by(col(AdapterAlias.alias))
    )
    found = dict(session.exec(query).all())
    if LATEST not in found and (newest := newest_version(session, adapter_id)):
        found[LATEST] = newest.version
    return found


def newest_version(session: Session, adapter_id: int) -> AdapterVersion | None:
    """The version that `latest` means if the one it points to is deleted: a ruined one last."""
    there = select(AdapterVersion).where(
        AdapterVersion.adapter_id == adapter_id, col(AdapterVersion.deleted_at).is_(None)
    )
    order = (col(AdapterVersion.ruined).is_not(None), col(AdapterVersion.version).desc())
    return session.exec(there.order_by(*order)).first()


def by_number(aliases: dict[str, int], number: int) -> Sequence[str]:
    """The aliases of one version, `latest` first."""
    return sorted((a for a, n in aliases.items() if n == number), key=lambda a: (a != LATEST, a))


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
