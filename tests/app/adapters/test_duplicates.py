"""The registry knows tensors again, on both databases, whatever the file around them is called."""

from __future__ import annotations

from app.registry.adapters.service import delete_adapter
from app.registry.adapters.versions.create_version import NewVersion, find_equal, publish
from app.registry.db import Database, Session
from app.registry.tables.adapters import AdapterVersion


def find(session: Session, tensors: str) -> AdapterVersion | None:
    return find_equal(session, canonical="", uploaded="", tensors_of_file=tensors)


def test_the_same_tensors_are_found_until_their_adapter_is_deleted(database: Database) -> None:
    with database.write() as session:
        for number, tensors in enumerate(("a" * 64, "b" * 64, None)):
            details = {"tensor_sha256": tensors} if tensors else {}
            new = NewVersion("Ink", "sd1", f"{number}" * 64, 1, 4, 4.0, details=details)
            publish(session, new)
    with database.write() as session:
        found = find(session, "b" * 64)
        assert found is not None
        assert found.sha256 == "1" * 64
        assert find(session, "c" * 64) is None
        delete_adapter(session, found.adapter_id)
    with database.read() as session:
        assert find(session, "b" * 64) is None
