"""Deletes one version of an adapter for good."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.unfinished import version_users
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.traces import delete_version_rows
from app.registry.blobs.deletion import Deletion
from app.registry.errors import Conflict
from app.registry.renders.dependents import dependents_of_version
from app.registry.tables.adapters import LATEST, Adapter, AdapterAlias, AdapterVersion


def delete_version(session: Session, adapter_id: int, reference: int | str) -> Deletion:
    """Delete a version, given by its number or an alias, with its files; its number is not reused.

    The alias `latest` moves to the newest version that is left. Raises Conflict for the only
    version, for one that another alias points to, and while jobs need it.
    """
    locked = select(Adapter).where(Adapter.id == adapter_id).with_for_update()
    session.exec(locked).first()  # no other version is made or deleted meanwhile
    adapter = service.require_listed(service.get_adapter(session, adapter_id))
    version = service.get_version(session, adapter, reference)
    what = f"version {version.version} of “{adapter.name}”"
    _require_deletable(session, adapter, version, what)
    deletion = Deletion(what)
    files = delete_version_rows(session, [version], deletion)
    deletion.count(files, "download")
    _move_latest(session, adapter, version, deletion)
    deletion.stays.append("Images generated with it and the run that trained it stay.")
    deletion.stays += dependents_of_version(session, adapter.key, version.version)
    adapter.last_version = max(adapter.last_version, version.version)
    session.add(adapter)
    session.flush()
    session.connection().execute(
        sa.delete(AdapterVersion).where(col(AdapterVersion.id) == version.key)
    )
    session.expire_all()
    return deletion


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
            f"{what[:1].upper()}{what[1:]} is used by {users}. Wait until they have ended or "
            "cancel them, then delete it."
        )


def _move_latest(
    session: Session, adapter: Adapter, version: AdapterVersion, deletion: Deletion
) -> None:
    """Point `latest` to the newest version that is left, if it pointed to the deleted one.

    A ruined one only if there is no other.
    """
    alias = session.get(AdapterAlias, (adapter.key, LATEST))
    if alias is None or alias.version_id != version.key:
        return
    left = select(AdapterVersion).where(
        AdapterVersion.adapter_id == adapter.key, AdapterVersion.id != version.key
    )
    order = (col(AdapterVersion.ruined).is_not(None), col(AdapterVersion.version).desc())
    newest = session.exec(left.order_by(*order).limit(1)).one()
    aliases.point(session, newest, LATEST)
    deletion.stays.append(f"“latest” then points to version {newest.version}.")
