"""Deletes adapters permanently; versions permanently, or so that they can be restored.

Deleting an adapter hides it and keeps everything. Deleting it permanently deletes its rows and the
files that nothing else refers to. Renders and merged adapters made with it stay and keep its name;
runs lose the reference to their version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.mentions import adapter_users, delete_version_rows, version_users
from app.registry.adapters.versions import aliases
from app.registry.blobs.deletion import Deletion
from app.registry.db import utcnow
from app.registry.deletion.lists import deleted_row
from app.registry.errors import Conflict
from app.registry.renders.covers import put_cover, usual_cover
from app.registry.renders.grids.cells import STACK
from app.registry.tables.adapters import (
    LATEST,
    Adapter,
    AdapterAlias,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.registry.tables.blobs import AdapterLook
from app.registry.tables.renders import Grid, Recipe, RenderAdapter
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Run, Sample
from app.registry.wording import capitalized, join_words, plural

MOST_NAMES = 3


def delete_forever(session: Session, adapter_id: int) -> Deletion:
    """Delete a deleted adapter and its versions permanently.

    Raises Conflict if the adapter is not deleted yet, or if unfinished jobs need it.
    """
    adapter = deleted_row(session, Adapter, adapter_id)
    of_adapter = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter_id)
    versions = list(session.exec(of_adapter))
    if users := adapter_users(session, adapter_id, [version.key for version in versions]):
        raise Conflict(
            f"“{adapter.name}” is used by {users}. Wait until they have ended or cancel them, then "
            "delete the adapter for good."
        )
    deletion = Deletion(f"adapter “{adapter.name}”")
    deletion.count(len(versions), "version")
    deletion.count(delete_version_rows(session, versions, deletion), "download")
    covers = (adapter.cover_sha256, adapter.imported_cover_sha256)
    deletion.files.update(filter(None, covers))
    deletion.stays.append("Images generated with it and the runs that trained it stay.")
    deletion.stays += dependents_of(session, adapter_id)
    delete_adapter_rows(session, adapter_id)
    return deletion


def delete_adapter_rows(session: Session, adapter_id: int) -> None:
    """Delete the rows of the adapter and its versions, and the references to them."""
    connection = session.connection()
    into = sa.update(Run).where(col(Run.adapter_id) == adapter_id)
    connection.execute(into.values(adapter_id=None))
    tables = AdapterAlias, AdapterTag, AdapterSearch, AdapterLook, RenderAdapter, AdapterVersion
    for table in tables:
        connection.execute(sa.delete(table).where(col(table.adapter_id) == adapter_id))
    connection.execute(sa.delete(Adapter).where(col(Adapter.id) == adapter_id))
    session.expire_all()


def discard_version(session: Session, adapter_id: int, version: int | str) -> AdapterVersion:
    """Delete a version, given by its number or an alias, until it is restored.

    Until then `latest` means the newest version that is left, and a cover that is a sample of the
    deleted one is replaced. Raises Conflict for the only version, for one that another alias points
    to, and while jobs need it.
    """
    adapter = _locked_adapter(session, adapter_id)
    row = service.get_version(session, adapter, version)
    _require_deletable(session, adapter, row, _words(adapter, row))
    samples = service.version_samples(session, row)
    row.deleted_at = utcnow()
    adapter.last_version = max(adapter.last_version, row.version)
    session.add_all([adapter, row])
    session.flush()
    _replace_cover(session, adapter, samples)
    return row


def restore_version(session: Session, adapter_id: int, version: int | str) -> AdapterVersion:
    """Undo `discard_version`; `latest` means it again if it did, unless it was moved since."""
    adapter = _locked_adapter(session, adapter_id)
    used = service.get_version(session, adapter)
    with deleted_too(session):
        row = service.get_version(session, adapter, version)
    row.deleted_at = None
    session.add(row)
    session.flush()
    if service.get_version(session, adapter).key != used.key:
        _replace_cover(session, adapter, service.version_samples(session, used))
    return row


def _replace_cover(session: Session, adapter: Adapter, samples: Sequence[Sample]) -> None:
    """Give an adapter its usual cover, where the present one is one of these samples."""
    if adapter.cover_sha256 in [sample.sha256 for sample in samples]:
        put_cover(session, adapter, usual_cover(session, adapter))


def delete_version(session: Session, adapter_id: int, version: int | str) -> Deletion:
    """Delete a deleted version with its files; its number is not used again.

    Raises Conflict if it is not deleted yet.
    """
    adapter = _locked_adapter(session, adapter_id)
    row = service.get_version(session, adapter, version)
    deleted_row(session, AdapterVersion, row.key)
    deletion = Deletion(_words(adapter, row))
    latest = session.get(AdapterAlias, (adapter.key, LATEST))
    left = aliases.newest_version(session, adapter.key)
    if left is not None and latest is not None and latest.version_id == row.key:
        aliases.point(session, left, LATEST)
    named = sa.delete(AdapterAlias).where(col(AdapterAlias.version_id) == row.key)
    gone = session.connection().execute(named)  # set by a request that read it before
    deletion.count(gone.rowcount, "alias", "aliases")
    deletion.count(delete_version_rows(session, [row], deletion), "download")
    deletion.stays.append("Images generated with it and the run that trained it stay.")
    deletion.stays += dependents_of(session, adapter.key, row.version)
    session.connection().execute(sa.delete(AdapterVersion).where(col(AdapterVersion.id) == row.key))
    session.expire_all()
    return deletion


def _locked_adapter(session: Session, adapter_id: int) -> Adapter:
    """The adapter: no other version of it is made or deleted meanwhile."""
    locked = select(Adapter).where(Adapter.id == adapter_id).with_for_update()
    session.exec(locked).first()
    return service.require_listed(service.get_adapter(session, adapter_id))


def _words(adapter: Adapter, version: AdapterVersion) -> str:
    return f"version {version.version} of “{adapter.name}”"


def _require_deletable(
    session: Session, adapter: Adapter, version: AdapterVersion, what: str
) -> None:
    if service.count_versions(session, adapter.key) == 1:
        raise Conflict(f"This is the only version of “{adapter.name}”. Delete the adapter instead.")
    numbers = aliases.alias_numbers(session, adapter.key)
    named = [name for name in aliases.by_number(numbers, version.version) if name != LATEST]
    if named:
        words = ", ".join(f"“{name}”" for name in named)
        raise Conflict(
            f"{words} {'points' if len(named) == 1 else 'point'} to {what}. Move or remove "
            f"{'this alias' if len(named) == 1 else 'these aliases'} first."
        )
    if users := version_users(session, version):
        raise Conflict(
            f"{capitalized(what)} is used by {users}. Wait until they have ended or "
            "cancel them, then delete it."
        )


def dependents_of(session: Session, adapter_id: int, number: int | None = None) -> list[str]:
    """Sentences on the recipes and grids that use this version of an adapter, or any; or none."""
    recipes = [recipe.name for recipe in _recipes(session, adapter_id, number)]
    grids = [grid.title for grid in _grids(session, adapter_id, number)]
    found = []
    if recipes:
        is_all = number is None
        then = "it is left out there" if is_all else "the version in use takes its place there"
        found.append(f"{_subject_words('recipe', recipes)} it; {then}.")
    if grids:
        found.append(
            f"{_subject_words('grid', grids)} it: images that are not there yet cannot be made."
        )
    return found


def _subject_words(word: str, names: Sequence[str]) -> str:
    """“The recipe “Soft” uses”, or “The recipes “Soft”, “Hard” and 4 more use”."""
    shown = [f"“{name}”" for name in names[:MOST_NAMES]]
    if more := len(names) - len(shown):
        shown.append(f"{more:,} more")
    words = plural(len(names), word).partition(" ")[2]
    return f"The {words} {join_words(shown)} {'uses' if len(names) == 1 else 'use'}"


def _recipes(session: Session, adapter_id: int, number: int | None) -> Iterator[Recipe]:
    """The recipes with a version, unless they find it by an alias: then it cannot be deleted."""
    named = sa.cast(col(Recipe.adapters), sa.Text).contains(f'"adapter_id": {adapter_id}')
    for recipe in session.exec(select(Recipe).where(named, col(Recipe.deleted_at).is_(None))):
        used = [one for one in recipe.stack if one.adapter_id == adapter_id]
        if number is not None:
            used = [one for one in used if one.version == number and one.alias is None]
        if used:
            yield recipe


def _grids(session: Session, adapter_id: int, number: int | None) -> Iterator[Grid]:
    texts = [sa.cast(column, sa.Text) for column in (col(Grid.request), col(Grid.axes))]
    named = sa.or_(*(text.contains(f'"adapter_id": {adapter_id}') for text in texts))
    for grid in session.exec(select(Grid).where(named, col(Grid.deleted_at).is_(None))):
        if any(
            number is None or used.get("version") == number
            for used in _entries([*grid.request["adapters"], *grid.axes])
            if used.get("adapter_id") == adapter_id
        ):
            yield grid


def _entries(values: Collection[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The adapters of a request, and those that its axes name."""
    for value in values:
        if "adapter_id" in value:
            yield value
        for one in value.get("values", ()):
            if isinstance(one["value"], dict):
                yield from one["value"].get(STACK, [one["value"]])
