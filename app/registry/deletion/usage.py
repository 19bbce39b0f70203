"""The number and size of the stored files by kind, each file counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.actor import Principal
from app.registry.api_records import api_record
from app.registry.blobs import latents
from app.registry.blobs.references import HASH, ROWS_AT_ONCE
from app.registry.deletion.renders import is_only_in
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion, is_listed
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import principal_of
from app.registry.tables.renders import Render, RenderImage, RenderSource, SourceUser
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Checkpoint, Run, Sample


class FileKind(StrEnum):
    """The purpose of a file; one of several kinds counts as the first of them."""

    DATASETS = "datasets"
    ADAPTERS = "adapters"
    CHECKPOINT_ADAPTERS = "checkpoint_adapters"
    SAMPLES = "samples"
    RENDERS = "renders"
    RUNNING = "running"
    CHECKPOINTS = "checkpoints"
    PINNED = "pinned"
    DELETED_DATASETS = "deleted_datasets"
    DELETED_IMAGES = "deleted_images"
    DELETED_RENDERS = "deleted_renders"
    DELETED_ADAPTERS = "deleted_adapters"
    DELETED_RUNS = "deleted_runs"
    DELETED_VERSIONS = "deleted_versions"
    JOBS = "jobs"
    UNUSED = "unused"
    TRASH = "trash"
    CACHE = "cache"


KINDS_WITHOUT_ROWS = (FileKind.UNUSED, FileKind.TRASH, FileKind.CACHE)


@api_record
class StorageUse:
    """The stored files of a kind."""

    kind: FileKind = Field(description="What they are for.")
    files: int = Field(description="Their number.")
    size_bytes: int = Field(description="Their total size.")


def storage_use(state: AppState) -> list[StorageUse]:
    """The stored files by kind, and the cache of encodings of this machine.

    A person who is no administrator gets those of what they may see.
    """
    left = {blob.sha256: blob.size for blob in state.store.list()}
    uses = []
    with state.database.read() as session, deleted_too(session):
        thumbnails = {
            row.sha256: (row.small_sha256, row.large_sha256)
            for row in session.exec(select(Thumbnail))
        }
        for kind in FileKind:
            if kind not in KINDS_WITHOUT_ROWS:
                uses.append(_take(kind, _hashes(session, kind), left, thumbnails))
        if principal_of(session) is not None:
            return uses
    uses.append(StorageUse(FileKind.UNUSED, len(left), sum(left.values())))
    trash = [blob.size for blob in state.store.list_trash()]
    uses.append(StorageUse(FileKind.TRASH, len(trash), sum(trash)))
    data_dir = state.settings.data_dir
    uses.append(StorageUse(FileKind.CACHE, *latents.measure_cache(data_dir)))
    return uses


def _take(
    kind: FileKind,
    hashes: Iterable[str],
    left: dict[str, int],
    thumbnails: dict[str, tuple[str | None, str | None]],
) -> StorageUse:
    files = size_bytes = 0
    for sha256 in hashes:
        for one in (sha256, *thumbnails.get(sha256, ())):
            size = left.pop(one, None) if one else None
            if size is not None:
                files, size_bytes = files + 1, size_bytes + size
    return StorageUse(kind, files, size_bytes)


def _hashes(session: Session, kind: FileKind) -> Iterator[str]:
    """The hashes of the files of a kind, with some that are not of files."""
    query = _queries(principal_of(session))[kind]
    for row in session.exec(query, execution_options={"yield_per": ROWS_AT_ONCE}):
        for value in filter(None, row):
            yield from HASH.findall(value)


def _queries(person: Principal | None) -> dict[FileKind, Any]:
    source = sa.select(col(RenderSource.sha256))
    if person is not None:  # several may have uploaded it, and nobody owns it
        uploaded = sa.select(col(SourceUser.sha256)).where(
            col(SourceUser.user_id) == person.user_id
        )
        source = source.where(col(RenderSource.sha256).in_(uploaded))
    live = col(Dataset.deleted_at).is_(None)
    kept = col(Adapter.deleted_at).is_(None)
    image = sa.select(col(Image.clean_sha256), col(Image.thumbnail_sha256)).join(
        Dataset, col(Dataset.id) == col(Image.dataset_id)
    )
    adapter = (
        sa.select(
            col(AdapterVersion.sha256),
            sa.cast(col(AdapterVersion.details), sa.Text),
            col(AdapterFile.sha256),
            col(Adapter.cover_sha256),
            col(Adapter.imported_cover_sha256),
        )
        .join(Adapter, col(Adapter.id) == col(AdapterVersion.adapter_id))
        .outerjoin(AdapterFile, col(AdapterFile.version_id) == col(AdapterVersion.id))
    )
    is_there = col(AdapterVersion.deleted_at).is_(None)
    checkpoint = sa.select(col(Checkpoint.sha256)).join(Run, col(Run.id) == col(Checkpoint.run_id))
    running = col(Run.status).in_(NOT_FINAL)
    state_is_there = col(Checkpoint.deleted_at).is_(None) & col(Run.deleted_at).is_(None)
    sample = sa.select(col(Sample.sha256)).outerjoin(Run, col(Run.id) == col(Sample.run_id))
    weights = (
        sa.select(col(AdapterVersion.sha256))
        .join(Adapter, col(Adapter.id) == col(AdapterVersion.adapter_id))
        .join(Run, col(Run.id) == col(Adapter.run_id))
    )
    of_deleted_run = col(Run.deleted_at).is_not(None)
    job = (sa.cast(col(IoJob.args), sa.Text), sa.cast(col(IoJob.result), sa.Text))
    deleted_image = col(Image.deleted_at).is_not(None)
    image_of_render = sa.select(col(RenderImage.sha256)).join(
        Render, col(Render.id) == col(RenderImage.render_id)
    )
    deleted_render = col(Render.deleted_at).is_not(None) | is_only_in()
    return {
        FileKind.DATASETS: image.where(live, ~deleted_image),
        FileKind.ADAPTERS: adapter.where(kept, is_listed(), is_there),
        FileKind.CHECKPOINT_ADAPTERS: adapter.where(~is_listed(), is_there),
        FileKind.SAMPLES: sample.where(col(Run.deleted_at).is_(None)),
        FileKind.RENDERS: sa.union_all(
            image_of_render.where(~deleted_render),
            source,
        ),
        FileKind.RUNNING: checkpoint.where(running),
        FileKind.CHECKPOINTS: checkpoint.where(~running, state_is_there),
        FileKind.PINNED: sa.select(sa.cast(col(DatasetVersion.items), sa.Text)),
        FileKind.DELETED_DATASETS: image.where(~live),
        FileKind.DELETED_IMAGES: image.where(live, deleted_image),
        FileKind.DELETED_RENDERS: image_of_render.where(deleted_render),
        FileKind.DELETED_ADAPTERS: adapter.where(~kept),
        FileKind.DELETED_RUNS: sa.union_all(
            *(rows.where(of_deleted_run) for rows in (sample, checkpoint, weights))
        ),
        FileKind.DELETED_VERSIONS: sa.union_all(
            adapter.where(~is_there).with_only_columns(col(AdapterVersion.sha256)),
            adapter.where(~is_there).with_only_columns(col(AdapterFile.sha256)),
            checkpoint.where(~state_is_there),
        ),
        FileKind.JOBS: sa.select(*job),
    }
