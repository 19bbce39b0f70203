"""A registry with files, on both databases, and what deleting for good does to it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.blobs import deletion as freeing
from app.registry.blobs.deletion import FreedSpace, Removal
from app.registry.blobs.guard import make_guard
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import service as renders
from app.registry.renders.requests import RenderRequest
from app.registry.runs import progress, requests
from app.registry.runs import service as runs
from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.runs import Checkpoint, Run
from tests import fake_workers
from tests.conftest import close_file
from tests.images import make_png
from worker.core.training.presets import Preset

SECRET = "my cat Mimi"  # a caption that must not survive


@dataclass(frozen=True)
class Registry:
    """A registry whose base is ready; `state` is what services are called with."""

    state: AppState

    @property
    def database(self) -> Database:
        return self.state.database

    def size(self) -> int:
        """Size of all stored files."""
        return sum(blob.size for blob in self.state.store.list())

    def delete(self, remove: Removal) -> FreedSpace:
        """Delete for good; what was announced is what is freed, to the byte."""
        before = self.size()
        announced = freeing.preview(self.state, remove)
        assert self.size() == before
        freed = freeing.delete(self.state, remove)
        assert freed == announced
        assert before - self.size() == freed.size_bytes
        return freed

    def blob(self, words: str) -> str:
        return fake_workers.blob(self.state, words.encode())

    def add(self, *rows: SQLModel) -> None:
        with self.database.write() as session:
            session.add_all(rows)

    def dataset(self, name: str = "Cats", *, caption: str = SECRET, pictures: int = 3) -> Dataset:
        dataset = fake_workers.dataset(self.state, name, pictures=pictures)
        with self.database.write() as session:
            for image in session.exec(select(Image).where(Image.dataset_id == dataset.key)):
                image.caption = caption
                session.add(image)
        return dataset

    def run(
        self, dataset: Dataset, *, continues: int | None = None, samples: bool = True, **more: Any
    ) -> Run:
        """A finished run with samples, thumbnails and a checkpoint, without an adapter."""
        request = requests.RunRequest(
            dataset_id=dataset.key,
            preset=Preset.QUICK,
            config={"steps": 60 if continues else 40},
            continues=requests.StartCheckpoint(continues) if continues else None,
            **more,
        )
        with self.database.write() as session:
            requests.create_run(session, request)
        training = fake_workers.FakeTraining(self.state)
        training.train(20)
        if samples:
            training.sample(20, [SECRET])
        content = f"state of {training.run_id}".encode() * 100
        with self.database.write() as session:
            progress.add_checkpoint(
                session,
                training.claim,
                step=50 if continues else 20,
                sha256=fake_workers.blob(self.state, content),
                size_bytes=len(content),
                keep=2,
            )
            for sample in runs.run_samples(session, training.run_id):
                small = self.blob(f"small {sample.sha256}")
                if session.get(Thumbnail, sample.sha256) is None:
                    session.add(Thumbnail(sha256=sample.sha256, small_sha256=small))
            session.flush()
            jobs.finish(session, Run, training.claim, JobStatus.FAILED, error=SECRET)
            return session.get_one(Run, training.run_id, populate_existing=True)

    def texts(self) -> str:
        """All that the database says, in every table."""
        with self.database.read() as session:
            tables = SQLModel.metadata.sorted_tables
            rows = [session.connection().execute(sa.select(table)).all() for table in tables]
        return repr(rows)


@pytest.fixture
def registry(database: Database, ready_base: None, tmp_path: Path) -> Registry:
    return Registry(state_with(database.engine, tmp_path / "data"))


def state_with(engine: sa.Engine, data_dir: Path) -> AppState:
    store = LocalBlobStore(data_dir / "blobs")
    return AppState(
        settings=Settings(_env_file=None, data_dir=data_dir),
        database=Database(engine, check_rows=make_guard(store)),
        store=store,
        decoder=cast(Any, None),
        wakeups=cast(Any, None),
    )


@pytest.fixture(scope="session")
def filled_folder(tmp_path_factory: pytest.TempPathFactory, ready_template: Path) -> Path:
    """A data folder to copy.

    Run 1 with checkpoints, its adapter with two versions, render 2 with a twin, a dataset of three
    images.
    """
    folder = tmp_path_factory.mktemp("filled")
    file = folder / "brushwork.db"
    file.write_bytes(ready_template.read_bytes())
    state = state_with(make_engine(f"sqlite:///{file}"), folder)
    adapter = fake_workers.adapter(state)
    with state.database.write() as session:
        for step in (20, 40):
            sha256 = fake_workers.blob(state, f"state at {step}".encode() * 1_000)
            session.add(Checkpoint(run_id=1, step=step, sha256=sha256, size_bytes=11_000))
        weights = fake_workers.blob(state, b"second")
        new = NewVersion("x", "sd1", weights, 6, 1, 1.0, base_model_id=1)
        publish(session, new, adapter_id=adapter.key)
        used = [fake_workers.weighted(adapter.key)]
        request = RenderRequest(prompt="a castle", adapters=used, twin=True)
        renders.create_render(session, request, state.store)
    fake_workers.draw(state)
    close_file(state.database.engine)
    return folder


@pytest.fixture
def filled(filled_folder: Path, state: AppState) -> None:
    """The registry behind `client` is a copy of `filled_folder`."""
    state.database.dispose()
    shutil.copytree(filled_folder, state.settings.data_dir, dirs_exist_ok=True)


def picture(number: int) -> bytes:
    return make_png(number)
