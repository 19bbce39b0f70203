"""A registry with a small dataset, and rooms that really train, draw and do io jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.base_models.inspection import Found, write_found
from app.base_models.service import ensure_embedded
from app.config import Settings
from app.datasets.models import Dataset, DatasetVersion
from app.db import Database
from app.jobs import service as jobs
from app.runs.models import Run
from app.storage import BlobStore, open_store
from tests.worker.runtime.rooms import CONFIG, picture, working
from worker import starter
from worker.bases.inspect import inspect_base
from worker.runtime.room import Room
from worker.runtime.training import Training


@pytest.fixture
def worker_settings(tmp_path: Path, sqlite_database: Database) -> Settings:
    """Settings of workers on the registry of this test, with a lease of two seconds."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return Settings(
        _env_file=None,
        data_dir=data_dir,
        database_url=str(sqlite_database.engine.url),
        device="cpu",
        threads=1,
        lease_seconds=2.0,
    )


@pytest.fixture
def store(worker_settings: Settings) -> BlobStore:
    """The blobs of this test."""
    return open_store(None, worker_settings.data_dir)


@pytest.fixture
def new_run(sqlite_database: Database, store: BlobStore, base_id: int) -> Callable[..., int]:
    """A function that queues a run on four small pictures; keywords change its config."""
    items = [
        {"sha256": blob, "clean_sha256": blob, "caption": caption, "width": 64, "height": 64}
        for blob, caption in (
            (store.put_bytes(picture(number)).sha256, f"shape {number}, chalk style")
            for number in range(4)
        )
    ]
    with sqlite_database.write() as session:
        dataset = Dataset(slug="shapes", name="Shapes", trigger_word="chalk")
        session.add(dataset)
        session.flush()
        version = DatasetVersion(
            dataset_id=dataset.key, fingerprint="f" * 64, image_count=4, items=items
        )
        session.add(version)

    def enqueue(name: str = "Chalk", **config: Any) -> int:
        merged = CONFIG | config
        with sqlite_database.write() as session:
            run = Run(
                name=name,
                dataset_id=dataset.key,
                dataset_version_id=version.key,
                base_model_id=base_id,
                trigger_word="chalk",
                config=merged,
                total_steps=merged["steps"],
            )
            return jobs.enqueue(session, run).key

    return enqueue


@pytest.fixture
def train_room(
    sqlite_database: Database, worker_settings: Settings, store: BlobStore
) -> Iterator[Room]:
    """A train room at work, its trainer warming up."""
    work = Training(worker_settings, sqlite_database, store)
    with working(sqlite_database, work, worker_settings) as room:
        yield room


@pytest.fixture
def base_id(sqlite_database: Database) -> int:
    """The embedded base, looked at and ready."""
    info = inspect_base(starter.PATH)
    with sqlite_database.write() as session:
        base = ensure_embedded(session)
        session.flush()
        write_found(
            session,
            base.key,
            Found(
                family=str(info.family),
                prediction_type=str(info.prediction_type),
                resolution=info.resolution,
                cross_attention_dim=info.cross_attention_dim,
                parameters=dict(info.parameters),
                size_bytes=info.size_bytes,
                fingerprint=info.fingerprint,
            ),
        )
        return base.key
