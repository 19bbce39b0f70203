"""The list of versions on the page of an adapter: folded, or a page of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.registry.adapters import service
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import next_number
from app.registry.db import MAX_ID, Session
from app.registry.tables.adapters import Adapter, AdapterVersion

FOLDED = 8
A_PAGE = 50
ALL = "all"  # in the address: the first page; a number: the versions below it


@dataclass(frozen=True)
class VersionLine:
    """A version in the list of versions."""

    version: AdapterVersion
    aliases: list[str]


@dataclass(frozen=True)
class VersionList:
    """Versions, newest first; `is_page`: a page of all, not the folded list.

    `older`: what the address of the next page says; None on the last page. `other`: the version to
    compare the shown one with, the one before it, else another.
    """

    lines: list[VersionLine]
    is_page: bool
    older: int | None
    other: int | None
    next_number: int


def list_versions(
    session: Session,
    adapter: Adapter,
    shown: AdapterVersion,
    names: Mapping[str, int],
    page: str = "",
) -> VersionList:
    """The newest versions, those with an alias and the shown one, or the `page` of the address."""
    below = _below(page)
    found = (
        _folded(session, shown, names)
        if below is None
        else service.list_versions(session, adapter.key, limit=A_PAGE + 1, before=below)
    )
    has_older = below is not None and len(found) > A_PAGE
    found = found[:A_PAGE] if has_older else found
    before = service.list_versions(session, adapter.key, limit=1, before=shown.version)
    others = [row.version for row in before or reversed(found) if row.version != shown.version]
    return VersionList(
        lines=[
            VersionLine(row, list(aliases.by_number(dict(names), row.version))) for row in found
        ],
        is_page=below is not None,
        older=found[-1].version if has_older else None,
        other=next(iter(others), None),
        next_number=next_number(session, adapter),
    )


def _below(page: str) -> int | None:
    if page == ALL:
        return MAX_ID
    return int(page) if page.isascii() and page.isdigit() else None


def _folded(
    session: Session, shown: AdapterVersion, names: Mapping[str, int]
) -> list[AdapterVersion]:
    newest = service.list_versions(session, shown.adapter_id, limit=FOLDED)
    missing = {*names.values(), shown.version} - {row.version for row in newest}
    found = newest + service.versions_by_number(session, shown.adapter_id, missing)
    return sorted(found, key=lambda row: row.version, reverse=True)
