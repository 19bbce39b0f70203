"""Deletes adapters permanently.

Deleting an adapter hides it and keeps everything. Deleting it permanently deletes its rows and the
files that nothing else refers to. Renders and merged adapters made with it stay and keep its name;
runs lose the reference to their version.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters.unfinished import adapter_users
from app.registry.adapters.versions.traces import delete_version_rows
from app.registry.blobs.deletion import Deletion
from app.registry.deletion.lists import deleted_row
from app.registry.errors import Conflict
from app.registry.renders.dependents import dependents_of
from app.registry.tables.adapters import (
    Adapter,
    AdapterAlias,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.registry.tables.blobs import AdapterLook
from app.registry.tables.renders import RenderAdapter
from app.registry.tables.runs import Run


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
