"""The rows that need stored files, in words: for lists of damaged and missing files.

Every column and JSON value that names a blob is read here; a test compares the columns with the
tables. Rows in the trash count, as they can be restored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs import thumbnails
from app.registry.blobs.references import ROWS_AT_ONCE
from app.registry.db import database_now
from app.registry.job_kinds.kinds import DamagedJob, FuseAdapterResult, ImportAdapterArgs, JobKind
from app.registry.job_kinds.states import ACTIVE
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion, is_listed
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import JOB_FILES_KEPT, IoJob
from app.registry.tables.renders import Recipe, Render, RenderImage, RenderSource
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Checkpoint, Run, Sample

FILTERED_BY_DATABASE = 500  # hashes; more are filtered while reading

FROM_BACKUP = "Restore it from a backup"
ADAPTER_REMEDY = f"{FROM_BACKUP}, import or train the adapter again, or delete it."
IMAGE_REMEDY = f"{FROM_BACKUP}, upload the image again, or delete it."
RENDER_REMEDY = f"{FROM_BACKUP}, or generate the image again."
SOURCE_REMEDY = f"{FROM_BACKUP}, or upload the image again."
RUN_REMEDY = f"{FROM_BACKUP}; the run continues from an older checkpoint."
AGAIN_REMEDY = f"{FROM_BACKUP}, or do this again."
MADE_AGAIN = "It is made again when it is needed."


class Subject(StrEnum):
    """The kind of thing that a file belongs to."""

    ADAPTER = "adapter"
    DATASET = "dataset"
    RUN = "run"
    RENDER = "render"
    BLIND_TEST = "blind_test"
    THUMBNAIL = "thumbnail"
    IO_JOB = "io_job"


@dataclass(frozen=True)
class Reference:
    """A row that needs a stored file: the row, what the file is to it, and what to do about it.

    `size`: of the file, if the row knows it.
    """

    sha256: str
    subject: Subject
    subject_id: int
    what: str
    remedy: str
    size: int | None = None


def list_references(session: Session, wanted: Collection[str] | None = None) -> Iterator[Reference]:
    """Every reference to these files, or to all; a row that needs a file twice may come twice."""
    hashes = None if wanted is None else frozenset(wanted)
    if hashes is not None and not hashes:
        return
    for read in READERS:
        for found in read(session, hashes):
            if hashes is None or found.sha256 in hashes:
                yield found


Hashes = frozenset[str] | None
Reader = Callable[[Session, Hashes], Iterator[Reference]]


def _rows(session: Session, query: Any, column: Any, wanted: Hashes) -> Iterator[Any]:
    """The rows of a query, narrowed to wanted hashes in this column where they are few."""
    if wanted is not None and len(wanted) <= FILTERED_BY_DATABASE:
        query = query.where(col(column).in_(wanted))
    with deleted_too(session):
        rows = session.exec(query.execution_options(yield_per=ROWS_AT_ONCE))
    yield from rows


def _weights(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(AdapterVersion, Adapter.name).join(Adapter).where(is_listed())
    for version, name in _rows(session, query, AdapterVersion.sha256, wanted):
        what = f"the weights of version {version.version} of “{name}”"
        yield Reference(
            version.sha256,
            Subject.ADAPTER,
            version.adapter_id,
            what,
            ADAPTER_REMEDY,
            version.size_bytes,
        )


def _checkpoint_adapters(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(AdapterVersion, Adapter.name, Adapter.run_id).join(Adapter).where(~is_listed())
    for version, name, run_id in _rows(session, query, AdapterVersion.sha256, wanted):
        what = f"the adapter of the checkpoint at step {version.version:,} of the run “{name}”"
        remedy = f"{FROM_BACKUP}, or delete the checkpoint."
        yield Reference(version.sha256, Subject.RUN, run_id, what, remedy, version.size_bytes)


def _originals(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(AdapterVersion, Adapter.name).join(Adapter)
    imported = query.where(sa.cast(AdapterVersion.details, sa.Text).contains("source_sha256"))
    for version, name in _rows(session, imported, AdapterVersion.sha256, None):
        sha256 = version.details.get("source_sha256")
        if isinstance(sha256, str):
            what = f"the original file of version {version.version} of “{name}”"
            yield Reference(sha256, Subject.ADAPTER, version.adapter_id, what, ADAPTER_REMEDY)


def _downloads(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = (
        select(AdapterFile, AdapterVersion.version, Adapter.id, Adapter.name)
        .join(AdapterVersion, col(AdapterVersion.id) == AdapterFile.version_id)
        .join(Adapter, col(Adapter.id) == AdapterVersion.adapter_id)
    )
    for file, number, adapter_id, name in _rows(session, query, AdapterFile.sha256, wanted):
        what = f"the download ({file.format}, {file.dtype}) of version {number} of “{name}”"
        yield Reference(file.sha256, Subject.ADAPTER, adapter_id, what, MADE_AGAIN, file.size_bytes)


def _covers(session: Session, wanted: Hashes) -> Iterator[Reference]:
    remedy = f"{FROM_BACKUP}, or choose another cover."
    for column, what in (
        (Adapter.cover_sha256, "the cover"),
        (Adapter.imported_cover_sha256, "the imported cover"),
    ):
        query = select(column, Adapter.id, Adapter.name).where(col(column).is_not(None))
        for sha256, adapter_id, name in _rows(session, query, column, wanted):
            yield Reference(sha256, Subject.ADAPTER, adapter_id, f"{what} of “{name}”", remedy)


def _images(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(Image, Dataset.name).join(Dataset)
    for image, name in _rows(session, query, Image.clean_sha256, wanted):
        what = f"the image “{image.filename}” of the dataset “{name}”"
        yield Reference(image.clean_sha256, Subject.DATASET, image.dataset_id, what, IMAGE_REMEDY)
    for image, name in _rows(session, query, Image.thumbnail_sha256, wanted):
        what = f"the thumbnail of the image “{image.filename}” of the dataset “{name}”"
        yield Reference(
            image.thumbnail_sha256, Subject.DATASET, image.dataset_id, what, IMAGE_REMEDY
        )


def _pinned_images(session: Session, wanted: Hashes) -> Iterator[Reference]:
    """The images of dataset versions that are no longer in the dataset."""
    query = select(DatasetVersion, Dataset.name).join(Dataset)
    for version, name in session.exec(query.execution_options(yield_per=ROWS_AT_ONCE)):
        pinned = {str(item["clean_sha256"]) for item in version.items if "clean_sha256" in item}
        if wanted is not None:
            pinned &= wanted
        if not pinned:
            continue
        query_own = select(Image.clean_sha256).where(Image.dataset_id == version.dataset_id)
        own = session.exec(query_own).all()
        for sha256 in sorted(pinned.difference(own)):
            what = f"an image that runs on the dataset “{name}” were trained with"
            yield Reference(sha256, Subject.DATASET, version.dataset_id, what, IMAGE_REMEDY)


def _blind_tests(session: Session, wanted: Hashes) -> Iterator[Reference]:
    """The images of datasets that blind tests show."""
    for test in _rows(session, select(BlindTest), BlindTest.id, None):
        for sha256 in (*test.references, *test.controls):
            what = f"an image of the dataset in the blind test “{test.title}”"
            yield Reference(sha256, Subject.BLIND_TEST, test.key, what, IMAGE_REMEDY)


def _checkpoints(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(Checkpoint, Run.name).join(Run)
    for row, name in _rows(session, query, Checkpoint.sha256, wanted):
        what = f"the checkpoint at step {row.step:,} of the run “{name}”"
        yield Reference(row.sha256, Subject.RUN, row.run_id, what, RUN_REMEDY, row.size_bytes)


def _samples(session: Session, wanted: Hashes) -> Iterator[Reference]:
    query = select(Sample, Run.name).join(Run)
    for row, name in _rows(session, query, Sample.sha256, wanted):
        what = f"a sample at step {row.step:,} of the run “{name}”"
        yield Reference(row.sha256, Subject.RUN, row.run_id, what, f"{FROM_BACKUP}.")
    kept = (
        select(Sample, AdapterVersion, Adapter.name)
        .join(AdapterVersion, col(AdapterVersion.id) == col(Sample.version_id))
        .join(Adapter, col(Adapter.id) == col(AdapterVersion.adapter_id))
    )
    for row, version, name in _rows(session, kept, Sample.sha256, wanted):
        what = f"a sample of version {version.version} of “{name}”"
        yield Reference(row.sha256, Subject.ADAPTER, version.adapter_id, what, f"{FROM_BACKUP}.")


def _renders(session: Session, wanted: Hashes) -> Iterator[Reference]:
    for row in _rows(session, select(RenderImage), RenderImage.sha256, wanted):
        what = f"image {row.index + 1} of the render {row.render_id}"
        yield Reference(row.sha256, Subject.RENDER, row.render_id, what, RENDER_REMEDY)


def _sources(session: Session, wanted: Hashes) -> Iterator[Reference]:
    """The images that renders and recipes start from, and those that none uses yet."""
    starting = select(Render.source_sha256, Render.id).where(col(Render.source_sha256).is_not(None))
    for sha256, render_id in _rows(session, starting, Render.source_sha256, wanted):
        what = f"the image that the render {render_id} starts from"
        yield Reference(sha256, Subject.RENDER, render_id, what, SOURCE_REMEDY)
    kept = select(Recipe.source_sha256, Recipe.name).where(col(Recipe.source_sha256).is_not(None))
    for sha256, name in _rows(session, kept, Recipe.source_sha256, wanted):
        what = f"the image that the recipe “{name}” starts from"
        yield Reference(sha256, Subject.RENDER, 0, what, SOURCE_REMEDY)
    for sha256 in _rows(session, select(RenderSource.sha256), RenderSource.sha256, wanted):
        what = "an image to start from, chosen on the playground"
        yield Reference(sha256, Subject.RENDER, 0, what, SOURCE_REMEDY)


def _thumbnails(session: Session, wanted: Hashes) -> Iterator[Reference]:
    """Thumbnails, each as part of what shows its image."""
    for column in (Thumbnail.small_sha256, Thumbnail.large_sha256):
        query = select(Thumbnail.sha256, column).where(
            col(column).is_not(None), thumbnails.IS_IN_USE
        )
        for _, sha256 in _rows(session, query, column, wanted):
            assert sha256 is not None
            yield Reference(sha256, Subject.THUMBNAIL, 0, "the thumbnail of an image", MADE_AGAIN)


def _jobs(session: Session, wanted: Hashes) -> Iterator[Reference]:
    """Uploads that wait for their import, and fused files for download."""
    waiting = select(IoJob).where(
        IoJob.kind == JobKind.IMPORT_ADAPTER, col(IoJob.status).in_(ACTIVE)
    )
    for job in session.exec(waiting):
        args = job.readable_arguments()
        if isinstance(args, ImportAdapterArgs):
            what = f"the uploaded file “{args.filename}”, which waits for its import"
            for sha256 in (args.sha256, *(sidecar.sha256 for sidecar in args.sidecars)):
                yield Reference(sha256, Subject.IO_JOB, job.key, what, AGAIN_REMEDY)
    since = database_now(session) - JOB_FILES_KEPT
    fused = select(IoJob).where(IoJob.kind == JobKind.FUSE_ADAPTER, col(IoJob.finished_at) >= since)
    for job in session.exec(fused):
        with contextlib.suppress(DamagedJob):
            made = job.outcome(FuseAdapterResult)
            if made.sha256:
                what = f"the fused base model “{made.filename}”"
                yield Reference(made.sha256, Subject.IO_JOB, job.key, what, AGAIN_REMEDY)


READERS: tuple[Reader, ...] = (
    _weights,
    _checkpoint_adapters,
    _originals,
    _images,
    _checkpoints,
    _renders,
    _sources,
    _samples,
    _covers,
    _downloads,
    _pinned_images,
    _blind_tests,
    _thumbnails,
    _jobs,
)
"""In the order of what matters most: the first reference to a file names it."""
