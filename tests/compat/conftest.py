"""A data folder of commit 57f004e opened by today's code, before and after its jobs ran."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from safetensors.torch import load_file, save_file
from sqlmodel import select

from app.registry import migrate
from app.registry.adapters import service as adapters
from app.registry.adapters.service import DownloadDtype, DownloadFormat
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.jobs.models import IoJob
from app.registry.jobs.service import claim_next
from app.registry.state import AppState
from app.web.main import create_app
from tests.fake_hub import WRITE, Hub, open_hub
from worker.core import starter
from worker.runtime.io_jobs import IoWork
from worker.runtime.lease import Lease

ARCHIVE = Path(__file__).parent / "data-57f004e.tar.xz"
PLACE = "/srv/brushwork"  # stands for the folder that the archive was made in
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
LEASE_SECONDS = 60.0
# Names in requests, answers, configs and files that have changed since, old: new. The old value is
# expected under the new name; requests, configs and files may still use the old one.
RENAMED: dict[str, str] = {}


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

    def order_download_again(self) -> None:
        """Queue an export of the download with tags, as if it had not been written."""
        usual = (DownloadFormat.KOHYA, DownloadDtype.FP16)
        with self.state.database.write() as session:
            file = adapters.find_file(session, 1, *usual, with_tags=True)
            assert file is not None
            session.delete(file)
            adapters.order_file(session, 1, *usual, with_tags=True)

    def run_queued(self, kind: type[Any]) -> None:
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


@pytest.fixture(scope="session")
def processed(
    archive: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldData]:
    """The data folder after today's io worker ran its queued jobs, with a fake Hub."""
    folder = tmp_path_factory.mktemp("processed")
    add_base_models(folder)
    with open_hub() as hub:
        fill_hub(hub, archive)
        options = {"hub_endpoint": hub.url, "hub_token": SecretStr("good")}
        for opened in open_copy(archive, expected, folder, **options):
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("HF_TOKEN", raising=False)  # no login of this machine
                patch.setenv("HF_HOME", str(folder / "hf"))
                patch.setenv("HF_HUB_OFFLINE", "1")  # as in every worker
                opened.order_download_again()
                opened.run_queued(IoWork)
            yield opened


def open_copy(
    archive: Path, expected: dict[str, Any], folder: Path, **options: Any
) -> Iterator[OldData]:
    """Copy the data folder and open today's app on it."""
    shutil.copytree(archive / "data", folder / "data")
    with sqlite3.connect(folder / "data" / "brushwork.db") as connection:  # as if made here
        values = (PLACE, str(folder))
        connection.execute("UPDATE base_model SET source = replace(source, ?, ?)", values)
    connection.close()
    yield from open_folder(folder, expected, **options)


def open_folder(folder: Path, expected: dict[str, Any], **options: Any) -> Iterator[OldData]:
    """Migrate the data folder in this folder, or create it, and open today's app on it."""
    settings = Settings(
        _env_file=None,
        data_dir=folder / "data",
        broker_url=f"filesystem://{folder}/broker",
        allowed_hosts="testserver",
        device="cpu",
        threads=1,
        **options,
    )
    engine = make_engine(settings.sqlalchemy_url)
    migrate.upgrade(engine)
    engine.dispose()
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield OldData(folder, expected, app.state.brushwork, client)


def add_base_models(folder: Path) -> None:
    """Create the base models whose paths the registry holds: one tuned, one as shipped."""
    (folder / "second").symlink_to(starter.PATH)
    tuned = folder / "tuned"
    tuned.mkdir()
    for part in starter.PATH.iterdir():
        if part.name != "unet":
            (tuned / part.name).symlink_to(part)
    (tuned / "unet").mkdir()
    shutil.copy(starter.PATH / "unet" / "config.json", tuned / "unet")
    tensors = load_file(starter.PATH / UNET)
    tensors[LAYER] = tensors[LAYER] + 0.01
    save_file(tensors, tuned / UNET)


def fill_hub(hub: Hub, archive: Path) -> None:
    """Add the repositories that the queued jobs read, and a token that may write."""
    hub.tokens["good"] = WRITE
    hub.add_folder("acme/tiny", starter.PATH)
    card = b"---\nlicense: mit\ninstance_prompt: hrbr\n---\n# Ink\n"
    weights = (archive / "export.safetensors").read_bytes()
    hub.add("acme/ink", {"ink.safetensors": weights, "README.md": card})


def jobs_of(data: OldData, kind: str) -> list[IoJob]:
    """The jobs of a kind that were queued in the old data folder, as they are now."""
    waited = [job["id"] for job in data.expected["queued"]["io_job"] if job["kind"] == kind]
    return [data.row(IoJob, key) for key in waited]


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
