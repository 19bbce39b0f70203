"""Checkpoints on a disk that is full to the last byte: each refusal is clear, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import SQLModel

from app.registry.config import Settings
from app.registry.state import AppState
from app.registry.storage.store import DISK_FULL
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.conftest import make_settings
from tests.disks import fill, mounted_disk

HTML = {"accept": "text/html"}
PAGES = ("/runs/1/checkpoints/10/keep", "/runs/1/checkpoints/10/use", "/runs/1/save")
API = tuple(zip(("PUT", "POST", "POST"), (f"/api/v1{page}" for page in PAGES), strict=True))


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Iterator[Settings]:
    """Settings of an app whose data folder has a small disk of its own."""
    with mounted_disk(tmp_path / "disk", "size=32m") as disk:
        yield make_settings(disk / "data", sqlite_template)


def rows(state: AppState) -> dict[str, list[sa.Row[tuple[object, ...]]]]:
    """All that the database holds."""
    with state.database.engine.connect() as connection:
        return {
            table.name: list(connection.execute(sa.select(table)))
            for table in SQLModel.metadata.sorted_tables
        }


def test_keep_use_and_save_on_a_full_disk_change_nothing_and_work_when_there_is_space(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.checkpoint()
    state.database.forget_deleted_text()  # with an empty log the smallest change needs space
    disk = state.settings.data_dir.parent
    fill(disk)
    before = rows(state)
    for method, address in API:
        refused = client.request(method, address)
        assert refused.status_code == 507, address
        assert refused.json()["type"] == "urn:brushwork:problem:storage_full"
        assert refused.json()["detail"] == DISK_FULL
    for address in PAGES:
        page = client.post(address, headers=HTML)
        assert page.status_code == 507, address
        assert DISK_FULL in page.text
        assert "Go to the home page" in page.text
    assert rows(state) == before
    (disk / "filler").unlink()
    for method, address in API:
        assert client.request(method, address).is_success, address
    (row,) = client.get("/api/v1/runs/1/checkpoints").json()
    assert (row["step"], row["kept"], row["in_use"]) == (10, True, True)
    with state.database.read() as session:
        assert session.get_one(Run, 1).save_requested
