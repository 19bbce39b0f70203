"""A data folder of commit 57f004e, migrated and opened by today's code."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors import safe_open
from sqlmodel import select

from app.registry import migrate
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.jobs.service import claim_next
from app.registry.state import AppState
from app.web.main import create_app
from worker.core import starter
from worker.core.bases.inspect import inspect_base
from worker.runtime.lease import Lease

ARCHIVE = Path(__file__).parent / "data-57f004e.tar.xz"
PLACE = "/srv/brushwork"  # stands for the folder that the archive was made in
CONFIG_KEY = "brushwork.train_config"
LEASE_SECONDS = 60.0
# Names in requests, answers, configs and files that have changed since, old: new. The old value is
# expected under the new name; requests, configs and files may still use the old one.
RENAMED = {
    "licence": "license",
    "regularisation_dataset_id": "regularization_dataset_id",
    "regularisation_version_id": "regularization_version_id",
    "regularisation_weight": "regularization_weight",
}


@dataclass(frozen=True)
class OldData:
    """A copy of the old data folder with today's app; `expected` is what the old code answered."""

    folder: Path
    expected: dict[str, Any]
    state: AppState
    client: TestClient

    def get(self, path: str) -> Any:
        """The JSON that the API answers."""
        answer = self.client.get(f"/api/v1{path}")
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def row(self, table: type[Any], key: int) -> Any:
        """The row as it is now."""
        with self.state.database.read() as session:
            return session.get_one(table, key)

    def rows(self, table: type[Any], **values: Any) -> list[Any]:
        """Every row with these values, in the order they were stored."""
        with self.state.database.read() as session:
            return list(session.exec(select(table).filter_by(**values).order_by(table.id)))

    def run_queued(self, kind: Callable[..., Any]) -> None:
        """Run every queued job of this kind of worker in this thread."""
        database = self.state.database
        work = kind(self.state.settings, database, self.state.store)
        while True:
            with database.write() as session:
                claimed = claim_next(session, work.table, lease_seconds=LEASE_SECONDS)
            if claimed is None:
                work.close()
                return
            job, claim = claimed
            with Lease(database, work.table, claim, seconds=LEASE_SECONDS) as lease:
                work.run(job, lease, threading.Event())


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked; tests copy what they change."""
    folder = tmp_path_factory.mktemp("57f004e")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def old_starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the base model that was embedded then."""
    from tests.compat.old_starter import save_old_starter

    return save_old_starter(tmp_path_factory.mktemp("starter-57f004e"))


@pytest.fixture(scope="module", autouse=True)
def _embeds_the_old_base(old_starter: Path) -> Iterator[None]:
    """The stand-in is what is embedded here, whatever base model ships today."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "PATH", old_starter)
        yield


@pytest.fixture(scope="session")
def expected(archive: Path) -> dict[str, Any]:
    """What the old code answered about the data folder and the exported file."""
    content: dict[str, Any] = json.loads((archive / "expected.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def old_data(
    archive: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldData]:
    """The migrated data folder; tests only read it."""
    yield from open_copy(archive, expected, tmp_path_factory.mktemp("old_data"))


@pytest.fixture
def own_copy(archive: Path, expected: dict[str, Any], tmp_path: Path) -> Iterator[OldData]:
    """A copy of the data folder for one test, which may change it."""
    yield from open_copy(archive, expected, tmp_path)


def open_copy(
    archive: Path, expected: dict[str, Any], folder: Path, **options: Any
) -> Iterator[OldData]:
    """Copy the data folder and open today's app on it."""
    copy_data(archive, folder)
    yield from open_folder(folder, expected, **options)


def copy_data(archive: Path, folder: Path, *, made_with: str | None = None) -> None:
    """Copy the data folder, as if it had been made here with the base model that is embedded now.

    `made_with`: the fingerprint of another base model that it was made with instead.
    """
    shutil.copytree(archive / "data", folder / "data")
    made_with = made_with or inspect_base(starter.PATH).fingerprint
    with sqlite3.connect(folder / "data" / "brushwork.db") as connection:
        values = (PLACE, str(folder))
        connection.execute("UPDATE base_model SET source = replace(source, ?, ?)", values)
        connection.execute("UPDATE base_model SET fingerprint = ? WHERE id = 1", (made_with,))
        for (sha256,) in connection.execute("SELECT DISTINCT sha256 FROM checkpoint").fetchall():
            now = _change_checkpoint(folder / "data" / "blobs", sha256, made_with)
            values = (now, sha256)
            connection.execute("UPDATE checkpoint SET sha256 = ? WHERE sha256 = ?", values)
    connection.close()


def _change_checkpoint(blobs: Path, sha256: str, fingerprint: str) -> str:
    """Name the base model in the manifest of a stored checkpoint; returns its new hash."""
    from tests.compat.old_starter import FINGERPRINT

    old = blobs / sha256[:2] / sha256[2:4] / sha256
    entry = '"base_model": "{}"'  # in the adapter beside it, the fingerprint has another name
    was, now = entry.format(FINGERPRINT), entry.format(fingerprint)
    content = old.read_bytes().replace(was.encode(), now.encode())
    old.unlink()
    name = hashlib.sha256(content).hexdigest()
    new = blobs / name[:2] / name[2:4] / name
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(content)
    return name


def open_folder(folder: Path, expected: dict[str, Any], **options: Any) -> Iterator[OldData]:
    """Migrate the data folder in this folder, or create it, and open today's app on it."""
    settings = Settings(
        _env_file=None,
        data_dir=folder / "data",
        broker_url=f"filesystem://{folder}/broker",
        allowed_hosts="localhost",
        device="cpu",
        threads=1,
        **options,
    )
    engine = make_engine(settings.sqlalchemy_url)
    migrate.upgrade(engine)
    engine.dispose()
    app = create_app(settings)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield OldData(folder, expected, app.state.brushwork, client)


def renamed(value: Any) -> Any:
    """An answer of the old code with the names of today."""
    if isinstance(value, dict):
        return {RENAMED.get(name, name): renamed(entry) for name, entry in value.items()}
    return [renamed(entry) for entry in value] if isinstance(value, list) else value


def assert_holds(now: Any, old: Any, where: str = "") -> None:
    """Fail unless `now` has every entry of `old` with the same value; it may have more."""
    if isinstance(old, dict):
        assert old.keys() <= now.keys(), where
        for name in old:
            assert_holds(now[name], old[name], f"{where}.{name}")
    elif isinstance(old, list):
        assert len(now) == len(old), where
        for number, (new_entry, old_entry) in enumerate(zip(now, old, strict=True)):
            assert_holds(new_entry, old_entry, f"{where}[{number}]")
    else:
        assert now == old, where


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata
