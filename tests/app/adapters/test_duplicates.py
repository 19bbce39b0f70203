"""The registry knows tensors again, on both databases, whatever the file around them is called."""

from __future__ import annotations

from app.registry.adapters.service import delete_adapter
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.adapters.versions.duplicates import same_tensors
from app.registry.db import Database


def test_the_same_tensors_are_found_until_their_adapter_is_deleted(database: Database) -> None:
    with database.write() as session:
        for number, tensors in enumerate(("a" * 64, "b" * 64, None)):
            details = {"tensor_sha256": tensors} if tensors else {}
            new = NewVersion("Ink", "sd1", f"{number}" * 64, 1, 4, 4.0, details=details)
            publish(session, new)
    with database.write() as session:
        found = same_tensors(session, "b" * 64)
        assert found is not None
        assert found.sha256 == "1" * 64
        assert same_tensors(session, "c" * 64) is None
        delete_adapter(session, found.adapter_id)
    with database.read() as session:
        assert same_tensors(session, "b" * 64) is None
