"""A registry with a row of every kind that needs a stored file, and ways to damage the files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.create_version import NewFile, NewVersion, publish
from app.registry.base_models.service import ensure_embedded
from app.registry.blobs import findings
from app.registry.db import Database, make_engine, utcnow
from app.registry.job_kinds.kinds import JobKind, StoredSidecar
from app.registry.job_kinds.states import JobStatus
from app.registry.storage import open_store
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.blobs import FileProblem, Thumbnail
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderImage, RenderSource
from app.registry.tables.runs import Checkpoint, Run, Sample

AN_HOUR = 3_600.0  # older than what the clock of a file system cannot tell apart


@dataclass
class Filled:
    """A registry and its store; `blobs` are the hashes of its files by what they are."""

    database: Database
    store: BlobStore
    blobs: dict[str, str] = field(default_factory=dict)

    def put(self, words: str) -> str:
        """The hash of a stored file with this content, an hour old where that can be set."""
        sha256 = self.blobs[words] = self.store.put_bytes(words.encode()).sha256
        if self.store.is_local:
            moment = time.time() - AN_HOUR
            os.utime(self.store.local_path(sha256, Path()), (moment, moment))
        return sha256

    def damage(self, words: str) -> str:
        """Change a byte of a file, but not its size; return its hash."""
        sha256 = self.blobs[words]
        content = b"#" + words.encode()[1:]
        if isinstance(self.store, ObjectBlobStore):
            self.store._bucket.put(f"blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}", content)
        else:
            self.store._blob_path(sha256).write_bytes(content)  # type: ignore[attr-defined]
        return sha256

    def lose(self, words: str) -> str:
        """Delete a file behind the registry's back; return its hash."""
        self.store.delete(self.blobs[words])
        return self.blobs[words]

    def problems(self) -> dict[str, FileProblem]:
        """The known problems, by the kind of file."""
        with self.database.read() as session:
            found = findings.problems(session)
        names = {sha256: words for words, sha256 in self.blobs.items()}
        return {names[sha256]: problem for sha256, problem in found.items()}


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Filled:
    """A filled registry: on SQLite with a folder, on PostgreSQL with a bucket."""
    url = None if database.engine.dialect.name == "sqlite" else "memory://"
    return fill(Filled(database, open_store(url, tmp_path / "data")))


@pytest.fixture
def folder(sqlite_database: Database, tmp_path: Path) -> Filled:
    """A filled registry on SQLite with a folder."""
    return fill(Filled(sqlite_database, open_store(None, tmp_path)))


@pytest.fixture
def other_database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """An empty SQLite database of another registry."""
    path = tmp_path / "other.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(make_engine(f"sqlite:///{path}"))
    yield database
    database.dispose()


def fill(filled: Filled) -> Filled:
    """Add a row of every kind that needs files."""
    put = filled.put
    new = NewVersion(
        "Ink",
        "sd1",
        put("weights"),
        len("weights"),
        4,
        4.0,
        cover_sha256=put("cover"),
        details={"source_sha256": put("original")},
        files=[NewFile("kohya", "fp16", put("download"), len("download"))],
    )
    with filled.database.write() as session:
        adapter_id = publish(session, new).adapter_id
        session.get_one(Adapter, adapter_id).imported_cover_sha256 = put("imported cover")
        base_id = ensure_embedded(session).key
        dataset = Dataset(slug="toys", name="Toys")
        session.add(dataset)
        session.flush()
        image = Image(
            dataset_id=dataset.key,
            sha256="e" * 64,  # of the uploaded file, which is not kept
            clean_sha256=put("image"),
            thumbnail_sha256=put("thumbnail"),
            filename="fox.png",
            width=1,
            height=1,
            size_bytes=1,
        )
        shown = {"sha256": "e" * 64, "caption": "fox", "width": 1, "height": 1}
        items = [
            shown | {"clean_sha256": filled.blobs["image"]},
            shown | {"clean_sha256": put("pinned image")},
        ]
        version = DatasetVersion(
            dataset_id=dataset.key, fingerprint="x", image_count=2, items=items
        )
        session.add_all([image, version])
        session.flush()
        run = Run(
            name="Foxes",
            dataset_id=dataset.key,
            dataset_version_id=version.key,
            base_model_id=base_id,
            config={},
            total_steps=9,
            status=JobStatus.SUCCEEDED,
        )
        render = Render(
            base_model_id=base_id,
            prompt="x",
            seed=1,
            steps=1,
            guidance=1,
            width=8,
            height=8,
            cache_key="x",
            source_sha256=put("source"),
            strength=0.6,
            status=JobStatus.SUCCEEDED,
        )
        session.add_all([run, render])
        session.flush()
        sample = {"step": 4, "prompt_index": 0, "prompt": "x", "seed": 1}
        fused = {"sha256": put("fused"), "filename": "fused.safetensors", "size_bytes": 5}
        session.add_all(
            [
                Checkpoint(run_id=run.key, step=4, sha256=put("state"), size_bytes=len("state")),
                Sample(run_id=run.key, sha256=put("sample"), **sample),
                RenderSource(sha256=put("unused source"), width=8, height=8),
                RenderImage(render_id=render.key, index=0, seed=1, sha256=put("render")),
                Thumbnail(sha256=filled.blobs["render"], small_sha256=put("small render")),
                IoJob(
                    kind=JobKind.FUSE_ADAPTER,
                    status=JobStatus.SUCCEEDED,
                    finished_at=utcnow(),
                    result=fused,
                ),
            ]
        )
        sidecars = [StoredSidecar(name="x.json", sha256=put("sidecar"))]
        adapters.order_import(
            session, sha256=put("upload"), filename="x.safetensors", sidecars=sidecars
        )
    return filled
