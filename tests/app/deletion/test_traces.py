"""Nothing that was deleted for good can be read in the files of the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.datasets import service
from app.registry.db import Database
from app.registry.deletion import datasets as deletion
from app.registry.deletion.runs import delete_run
from tests.app.deletion.conftest import SECRET, Registry


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_deleted_captions_are_overwritten(sqlite_database: Database, registry: Registry) -> None:
    folder = Path(str(sqlite_database.engine.url.database)).parent
    dataset = registry.dataset()
    registry.run(dataset)
    secret = SECRET.encode()
    assert [path.name for path in files_with(folder, secret)]
    with registry.database.write() as session:
        service.caption_image(session, 1, f"{SECRET} asleep")
    with registry.database.write() as session:
        delete_run(session, 1)
        service.delete_dataset(session, dataset.key)
    registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert files_with(folder, secret) == []


def files_with(folder: Path, secret: bytes) -> list[Path]:
    """The files below a folder that contain these bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
